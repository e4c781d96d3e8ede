/* A real S3 server for tests: the endpoint that the environment names, else a versitygw of our own.
 *
 * VEXLAKE_TEST_S3_ENDPOINT  e.g. http://127.0.0.1:18333, with AWS_ACCESS_KEY_ID and
 *                           AWS_SECRET_ACCESS_KEY, and VEXLAKE_TEST_S3_BUCKET (a bucket that is
 *                           there; objects are made below prefixes of their own).
 * VEXLAKE_VERSITYGW         the server's program; ctest sets it to what tools/setup installs.
 *
 * Where there is neither, tests of S3 say so and pass. */
#ifndef VEXI_STORE_TEST_S3_SERVER_H
#define VEXI_STORE_TEST_S3_SERVER_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "store/s3.h"
#include "store/test_folder.h"

typedef struct vex_test_s3 {
    bool is_there;
    pid_t pid; /* 0 for a server that is not ours */
    uint16_t port;
    vex_test_folder folder;
    vexi_s3_settings settings; /* without a prefix */
} vex_test_s3;

/* A port of 127.0.0.1 that nobody uses at this moment. */
static inline uint16_t vex_test_free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

static inline bool vex_test_port_answers(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    bool answers = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return answers;
}

/* With certificate and key (paths, or both NULL) it speaks https. */
static inline void vex_test_s3_spawn(vex_test_s3 *s3, const char *program, const char *certificate,
                                     const char *key) {
    char listen[32], root[128], sidecar[128];
    s3->folder = vex_test_folder_make();
    snprintf(root, sizeof root, "%s/root", s3->folder.path);
    snprintf(sidecar, sizeof sidecar, "%s/sidecar", s3->folder.path);
    char bucket[160];
    snprintf(bucket, sizeof bucket, "%s/vex-test", root);
    CHECK(mkdir(root, 0755) == 0 && mkdir(bucket, 0755) == 0 && mkdir(sidecar, 0755) == 0);
    s3->port = vex_test_free_port();
    snprintf(listen, sizeof listen, "127.0.0.1:%u", s3->port);
    const char *arguments[24] = {program,           "--port",      listen,
                                 "--access",        "test-access", "--secret",
                                 "test-secret-key", "--quiet",     "--keep-alive"};
    size_t count = 9;
    if (certificate != NULL) {
        arguments[count++] = "--cert";
        arguments[count++] = certificate;
        arguments[count++] = "--key";
        arguments[count++] = key;
    }
    arguments[count++] = "posix";
    /* The sidecar holds what would be extended attributes: not every file system has them. */
    arguments[count++] = "--sidecar";
    arguments[count++] = sidecar;
    arguments[count++] = root;
    pid_t parent = getpid();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed check leaves no server behind */
        int null = open("/dev/null", O_RDWR);
        if (getppid() != parent || null < 0) {
            _exit(126);
        }
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        execv(program, (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    s3->pid = pid;
    for (int i = 0; i < 600 && !vex_test_port_answers(s3->port); i++) {
        CHECK(waitpid(pid, NULL, WNOHANG) == 0);
        (void)usleep(50000);
    }
    CHECK(vex_test_port_answers(s3->port));
    snprintf(s3->settings.endpoint, sizeof s3->settings.endpoint, "http%s://%s",
             certificate == NULL ? "" : "s", listen);
    snprintf(s3->settings.bucket, sizeof s3->settings.bucket, "vex-test");
    snprintf(s3->settings.region, sizeof s3->settings.region, "us-east-1");
    snprintf(s3->settings.access_key, sizeof s3->settings.access_key, "test-access");
    snprintf(s3->settings.secret_key, sizeof s3->settings.secret_key, "test-secret-key");
    s3->is_there = true;
}

/* In place: the struct is large. */
static inline void vex_test_s3_open(vex_test_s3 *s3) {
    memset(s3, 0, sizeof *s3);
    s3->settings.seed = 11;
    const char *endpoint = getenv("VEXLAKE_TEST_S3_ENDPOINT");
    const char *program = getenv("VEXLAKE_VERSITYGW");
    if (endpoint != NULL) {
        const char *bucket = getenv("VEXLAKE_TEST_S3_BUCKET");
        char uri[128];
        snprintf(uri, sizeof uri, "s3://%s", bucket == NULL ? "vex-test" : bucket);
        vexi_s3_options options = {.size = sizeof options, .endpoint = endpoint};
        CHECK_OK(
            vexi_s3_settings_load(uri, &options, vexi_s3_environment, NULL, &s3->settings, &err));
        s3->is_there = true;
    } else if (program != NULL && access(program, X_OK) == 0) {
        vex_test_s3_spawn(s3, program, NULL, NULL);
    } else {
        printf("    no S3 server: run tools/setup test, or set VEXLAKE_TEST_S3_ENDPOINT\n");
    }
}

static inline void vex_test_s3_close(vex_test_s3 *s3) {
    if (s3->pid != 0) {
        CHECK(kill(s3->pid, SIGKILL) == 0);
        CHECK(waitpid(s3->pid, NULL, 0) == s3->pid);
        vex_test_folder_remove(&s3->folder);
    }
    memset(s3, 0, sizeof *s3);
}

/* A store below a prefix of its own. */
static inline vexi_store *vex_test_s3_store(const vex_test_s3 *s3, const char *prefix) {
    vexi_s3_settings settings = s3->settings;
    char id[37];
    vexi_random_uuid(vex_test_env(), id);
    snprintf(settings.prefix, sizeof settings.prefix, "%s-%s", prefix, id);
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_s3_create(vex_test_env(), &settings, &store, &err));
    return store;
}

#endif

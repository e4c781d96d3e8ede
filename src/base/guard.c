#include "base/guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>

static _Thread_local sigjmp_buf *guard_target;
static struct sigaction guard_previous; /* written once under guard_once, then constant */
static pthread_once_t guard_once = PTHREAD_ONCE_INIT;

static void guard_handler(int number, siginfo_t *info, void *context) {
    if (guard_target != NULL) {
        /* Guards do not save the signal mask, which would cost a system call each. Ours leaves it
         * alone, but handlers that wrap ours (ThreadSanitizer's does) may have blocked SIGBUS: the
         * next fault would then kill the process. */
        sigset_t fault;
        sigemptyset(&fault);
        sigaddset(&fault, SIGBUS);
        pthread_sigmask(SIG_UNBLOCK, &fault, NULL);
        siglongjmp(*guard_target, 1);
    }
    if ((guard_previous.sa_flags & SA_SIGINFO) != 0) {
        guard_previous.sa_sigaction(number, info, context);
    } else if (guard_previous.sa_handler != SIG_DFL && guard_previous.sa_handler != SIG_IGN) {
        guard_previous.sa_handler(number);
    } else {
        /* The default action on return: the faulting load runs again. */
        signal(number, SIG_DFL);
    }
}

static void guard_install_once(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = guard_handler;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &guard_previous);
}

void vexi_guard_install(void) {
    pthread_once(&guard_once, guard_install_once);
}

vex_status vexi_guard_run(vex_status (*function)(void *argument, vex_error *err), void *argument,
                          const char *object, vex_error *err) {
    sigjmp_buf target;
    sigjmp_buf *volatile outer = guard_target;
    if (sigsetjmp(target, 0) != 0) {
        guard_target = outer;
        return vexi_fail(err, VEX_IO,
                         "%s: cannot read the mapped file (it was cut or its disk failed)", object);
    }
    guard_target = &target;
    vex_status status = function(argument, err);
    guard_target = outer;
    return status;
}

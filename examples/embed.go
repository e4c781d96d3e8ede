// VexLake in a Go program: the search is one cgo call, and its result comes as an Arrow record
// whose buffers are the library's own memory.
package main

/*
#cgo pkg-config: vexlake
#include <stdlib.h>
#include <string.h>
#include <vexlake.h>

// Structs with pointers are filled on this side, so that Go hands over numbers and plain arrays.
static vex_status create(vex_lake *lake, const char *name, uint32_t dimension, vex_error *err) {
	vex_collection_options options = {.size = sizeof options, .dimension = dimension};
	return vex_collection_create(lake, (vex_string){name, strlen(name)}, &options, err);
}

static vex_status put(vex_lake *lake, const char *name, const char *id, const float *vector,
                      uint32_t dimension, vex_error *err) {
	vex_row row = {.id = {id, strlen(id)}, .vector = vector, .dimension = dimension};
	return vex_put_rows(lake, (vex_string){name, strlen(name)}, &row, 1, err);
}

static vex_status search(vex_lake *lake, const char *name, const float *query, uint32_t dimension,
                         uint32_t k, struct ArrowSchema *schema, struct ArrowArray *batch,
                         vex_error *err) {
	vex_string asked = {"vector", 6};
	vex_search_options options = {
		.size = sizeof options, .k = k, .column_count = 1, .columns = &asked};
	return vex_search(lake, (vex_string){name, strlen(name)}, query, 1, dimension, &options, schema,
	                  batch, err);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"log"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"
)

func check(status C.vex_status, err *C.vex_error) error {
	if status == C.VEX_OK {
		return nil
	}
	return errors.New(C.GoString(&err.message[0]))
}

// VSearch finds the k rows nearest to the query. The record's columns are query, id, distance and
// vector; it may outlive the lake, and Release gives its memory back.
func VSearch(lake *C.vex_lake, name *C.char, query []float32, k int) (arrow.RecordBatch, error) {
	var schema cdata.CArrowSchema
	var batch cdata.CArrowArray
	var err C.vex_error
	status := C.search(lake, name, (*C.float)(&query[0]), C.uint32_t(len(query)), C.uint32_t(k),
		(*C.struct_ArrowSchema)(unsafe.Pointer(&schema)),
		(*C.struct_ArrowArray)(unsafe.Pointer(&batch)), &err)
	if e := check(status, &err); e != nil {
		return nil, e
	}
	distances := buffer(&batch, 2, 1)
	record, e := cdata.ImportCRecordBatch(&batch, &schema)
	if e != nil {
		return nil, e
	}
	if unsafe.Pointer(&record.Column(2).Data().Buffers()[1].Bytes()[0]) != distances {
		return nil, errors.New("the record is a copy")
	}
	return record, nil
}

// buffer is where the library put a buffer of a column.
func buffer(batch *cdata.CArrowArray, column, number int) unsafe.Pointer {
	parent := (*C.struct_ArrowArray)(unsafe.Pointer(batch))
	child := unsafe.Slice(parent.children, parent.n_children)[column]
	return unsafe.Slice(child.buffers, child.n_buffers)[number]
}

func run() error {
	uri, name := C.CString("mem://"), C.CString("colours")
	defer C.free(unsafe.Pointer(uri))
	defer C.free(unsafe.Pointer(name))
	var lake *C.vex_lake
	var err C.vex_error
	if e := check(C.vex_lake_open(uri, nil, &lake, &err), &err); e != nil {
		return e
	}
	if e := check(C.create(lake, name, 3, &err), &err); e != nil {
		return e
	}
	for id, vector := range map[string][]float32{
		"red": {1, 0, 0}, "green": {0, 1, 0}, "orange": {1, 0.5, 0},
	} {
		text := C.CString(id)
		status := C.put(lake, name, text, (*C.float)(&vector[0]), 3, &err)
		C.free(unsafe.Pointer(text))
		if e := check(status, &err); e != nil {
			return e
		}
	}
	record, e := VSearch(lake, name, []float32{1, 0.5, 0.25}, 2)
	if e != nil {
		return e
	}
	defer record.Release()
	if e := check(C.vex_lake_close(lake, &err), &err); e != nil {
		return e
	}
	ids, distances := record.Column(1).(*array.String), record.Column(2).(*array.Float64)
	for i := range ids.Len() {
		fmt.Println(ids.Value(i), distances.Value(i), record.Column(3).ValueStr(i))
	}
	return nil
}

func main() {
	if e := run(); e != nil {
		log.Fatal(e)
	}
}

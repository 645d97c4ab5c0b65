/* The objects of CPython's _asyncio, field by field, per version.  Ours are
   subclasses that use these very fields, so the memory of each object must be
   valid for CPython's own code at all times.  proof.c compares every field
   with the running interpreter before any of this is used. */
#ifndef OUROLOOP_LAYOUT_H
#define OUROLOOP_LAYOUT_H

#include "compat.h"

enum future_state { FUTURE_PENDING, FUTURE_CANCELLED, FUTURE_FINISHED };

typedef struct task_node {
    struct task_node *next, *prev; /* NULL while not in a list */
} task_node;

/* What all versions begin with. */
#define FUTURE_START \
    PyObject_HEAD \
    PyObject *loop; /* NULL: not initialized */ \
    PyObject *callback0, *context0; \
    PyObject *callbacks; /* list of (callback, context) after the first */ \
    PyObject *exception, *exception_tb; \
    PyObject *result; \
    PyObject *source_tb; \
    PyObject *cancel_msg;

#if PY_VERSION_HEX < 0x030B0000

#define LAYOUT_NAME "3.10"
#define FUTURE_FIELDS \
    FUTURE_START \
    enum future_state state; \
    int log_tb; \
    int blocking; \
    PyObject *dict; \
    PyObject *weakrefs; \
    PyObject *cancelled_exc_type, *cancelled_exc, *cancelled_exc_tb; \
    void *cancelled_exc_previous;

typedef struct {
    FUTURE_FIELDS
    PyObject *fut_waiter;
    PyObject *coro;
    PyObject *name;
    PyObject *context;
    int must_cancel;
    int log_destroy_pending;
    task_node node; /* ours */
} TaskObject;

#elif PY_VERSION_HEX < 0x030D0000

#define LAYOUT_NAME "3.11-3.12"
#define FUTURE_FIELDS \
    FUTURE_START \
    enum future_state state; \
    int log_tb; \
    int blocking; \
    PyObject *dict; \
    PyObject *weakrefs; \
    PyObject *cancelled_exc;

typedef struct {
    FUTURE_FIELDS
    PyObject *fut_waiter;
    PyObject *coro;
    PyObject *name;
    PyObject *context;
    int must_cancel;
    int log_destroy_pending;
    int num_cancels_requested;
    task_node node; /* ours */
} TaskObject;

#elif PY_VERSION_HEX < 0x030E0000

#define LAYOUT_NAME "3.13"
#define FUTURE_FIELDS \
    FUTURE_START \
    PyObject *cancelled_exc; \
    enum future_state state; \
    unsigned log_tb : 1; \
    unsigned blocking : 1;

typedef struct {
    FUTURE_FIELDS
    unsigned must_cancel : 1;
    unsigned log_destroy_pending : 1;
    int num_cancels_requested;
    PyObject *fut_waiter;
    PyObject *coro;
    PyObject *name; /* or a PyLong: the number of an unnamed task */
    PyObject *context;
    task_node node; /* ours */
} TaskObject;

#else

#define LAYOUT_NAME "3.14-3.15"
#define FUTURE_FIELDS \
    FUTURE_START \
    PyObject *cancelled_exc; \
    PyObject *awaited_by; /* a future, or a set of them */ \
    enum future_state state; \
    char is_task; \
    char awaited_by_is_set; \
    unsigned log_tb : 1; \
    unsigned blocking : 1;

typedef struct {
    FUTURE_FIELDS
    unsigned must_cancel : 1;
    unsigned log_destroy_pending : 1;
    int num_cancels_requested;
    PyObject *fut_waiter;
    PyObject *coro;
    PyObject *name; /* or a PyLong: the number of an unnamed task */
    PyObject *context;
    task_node node; /* in the thread's list of tasks */
#ifdef Py_GIL_DISABLED
    uintptr_t tid;
#endif
} TaskObject;

#endif

typedef struct {
    FUTURE_FIELDS
} FutureObject;

/* asyncio's Task, without a node of ours. */
#if PY_VERSION_HEX < 0x030E0000
#define STOCK_TASK_SIZE offsetof(TaskObject, node)
#else
#define STOCK_TASK_SIZE sizeof(TaskObject)
#endif

#endif

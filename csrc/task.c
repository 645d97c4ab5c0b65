/* Task: how it is made, what it answers, how it dies.  Its steps are in
   task_step.c.

   A subclass of asyncio's C Task, and of our Future, that uses the memory of
   the former.  Calling a task wakes it: see future.c. */
#include "ouroloop.h"

/* How it is made. */

/* "Task-<number>"; or, where the base type formats it when asked, the
   number. */
static PyObject *
default_name(module_state *state)
{
    unsigned long long number = ++state->task_count;
    char text[5 + 20], *digit = text + sizeof(text);

    if (COMPAT_LAZY_NAMES) {
        return PyLong_FromUnsignedLongLong(number);
    }
    /* By hand: a format string takes five times as long. */
    do {
        *--digit = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    digit -= 5;
    memcpy(digit, "Task-", 5);
    Py_ssize_t length = text + sizeof(text) - digit;
    PyObject *name = PyUnicode_New(length, 127);
    if (name != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(name), digit, length);
    }
    return name;
}

static int
set_name(TaskObject *self, module_state *state, PyObject *name)
{
    if (name == NULL || name == Py_None) {
        name = default_name(state);
    }
    else {
        name =
            PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
    }
    Py_XSETREF(self->name, name);
    return name == NULL ? -1 : 0;
}

/* 1, 0, or -1 with an exception.  Runs Python if it is no plain coroutine. */
static int
is_coroutine(module_state *state, PyObject *coro)
{
    if (PyCoro_CheckExact(coro)) {
        return 1;
    }
    PyObject *result = PyObject_CallOneArg(state->iscoroutine, coro);
    int truth = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return truth;
}

static void
refuse_coroutine(PyObject *coro)
{
    PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
}

/* The part of __init__() that is Future's, by the base type's own. */
static int
init_as_future(module_state *state, PyObject *self, PyObject *loop)
{
    PyObject *kwargs = PyDict_New();
    int result = -1;

    if (kwargs != NULL && PyDict_SetItem(kwargs, state->str_loop, loop) == 0) {
        result = state->stock.FutureType->tp_init(self, state->stock.no_args,
                                                  kwargs);
    }
    Py_XDECREF(kwargs);
    return result;
}

static int
loop_is_running(module_state *state, PyObject *loop)
{
    PyObject *value = PyObject_CallMethodNoArgs(loop, state->str_is_running);
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);

    Py_XDECREF(value);
    return truth;
}

/* All of __init__().  Runs Python. */
static int
init(module_state *state, TaskObject *self, PyObject *coro, PyObject *loop,
     PyObject *name, PyObject *context, bool eager_start)
{
    if (init_as_future(state, (PyObject *)self, loop) < 0) {
        return -1;
    }
#if COMPAT_AWAITED_BY
    self->is_task = 1;
#endif
    int result = is_coroutine(state, coro);
    if (result <= 0) {
        self->log_destroy_pending = 0;
        if (result == 0) {
            refuse_coroutine(coro);
        }
        return -1;
    }
    if (context == NULL || context == Py_None) {
        context = PyContext_CopyCurrent();
        if (context == NULL) {
            return -1;
        }
    }
    else {
        if (COMPAT_CONTEXT_CHECKED && !PyContext_CheckExact(context)) {
            PyErr_Format(PyExc_TypeError,
                         "a contextvars.Context was expected, got %T",
                         context);
            return -1;
        }
        Py_INCREF(context);
    }
    Py_XSETREF(self->context, context);
    Py_CLEAR(self->fut_waiter);
    self->must_cancel = 0;
    self->log_destroy_pending = 1;
#if COMPAT_TASK_CONTEXT
    self->num_cancels_requested = 0;
#endif
    Py_XSETREF(self->coro, Py_NewRef(coro));
    if (set_name(self, state, name) < 0) {
        return -1;
    }
    if (eager_start) {
        int running = loop_is_running(state, self->loop);
        if (running != 0) {
            return running < 0 ? -1 : Task_start(state, self);
        }
    }
    /* In this order: a task that is listed must be one that will run, else
       whoever cancels and awaits all tasks waits for ever. */
    if (Task_schedule(self, NULL) < 0) {
        return -1;
    }
    return Registry_add(state, self);
}

static int
Task_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"coro",    "loop",        "name",
                            "context", "eager_start", NULL};
    static char *names_3_11[] = {"coro", "loop", "name", "context", NULL};
    static char *names_3_10[] = {"coro", "loop", "name", NULL};
    PyObject *coro, *loop = Py_None, *name = NULL, *context = NULL;
    int eager_start = 0, parsed;
    module_state *state = state_of(self);

    if (state == NULL) {
        return -1;
    }
    if (COMPAT_EAGER_START) {
        parsed = PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOp:Task",
                                             names, &coro, &loop, &name,
                                             &context, &eager_start);
    }
    else if (COMPAT_TASK_CONTEXT) {
        parsed = PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOO:Task",
                                             names_3_11, &coro, &loop, &name,
                                             &context);
    }
    else {
        parsed = PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OO:Task",
                                             names_3_10, &coro, &loop, &name);
    }
    if (!parsed) {
        /* Let the base type refuse it, in the words of its version. */
        PyErr_Clear();
        return state->stock.TaskType->tp_init(self, args, kwargs);
    }
    return init(state, (TaskObject *)self, coro, loop, name, context,
                eager_start);
}

/* New, tracked by the caller; all fields after the head are zero. */
static TaskObject *
Task_alloc(module_state *state)
{
    TaskObject *self;

    if (state->free_tasks.count > 0) {
        self =
            (TaskObject *)state->free_tasks.objects[--state->free_tasks.count];
        (void)PyObject_Init((PyObject *)self, state->TaskType);
    }
    else {
        self = PyObject_GC_New(TaskObject, state->TaskType);
        if (self == NULL) {
            return NULL;
        }
    }
    memset((char *)self + sizeof(PyObject), 0,
           sizeof(TaskObject) - sizeof(PyObject));
    return self;
}

/* Where our own type cannot be. */
static PyObject *
create_stock(LoopObject *loop, PyObject *coro, PyObject *name,
             PyObject *context, bool eager_start)
{
    module_state *state = loop->state;
    PyObject *kwargs = PyDict_New(), *args = PyTuple_Pack(1, coro);
    PyObject *result = NULL;

    if (kwargs == NULL || args == NULL ||
        PyDict_SetItem(kwargs, state->str_loop, (PyObject *)loop) < 0 ||
        (name != NULL && PyDict_SetItem(kwargs, state->str_name, name) < 0) ||
        (context != NULL &&
         PyDict_SetItem(kwargs, state->str_context, context) < 0) ||
        (eager_start &&
         PyDict_SetItem(kwargs, state->str_eager_start, Py_True) < 0)) {
        goto done;
    }
    result = PyObject_Call((PyObject *)state->stock.TaskType, args, kwargs);
done:
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    return result;
}

PyObject *
Task_create(LoopObject *loop, PyObject *coro, PyObject *name,
            PyObject *context, bool eager_start)
{
    module_state *state = loop->state;
    TaskObject *self;

    if (state->TaskType == NULL) {
        return create_stock(loop, coro, name, context, eager_start);
    }
    self = Task_alloc(state);
    if (self == NULL) {
        return NULL;
    }
    PyObject_GC_Track(self);
    if (!Loop_is_direct(loop) || eager_start || !PyCoro_CheckExact(coro) ||
        (context != NULL && !PyContext_CheckExact(context))) {
        if (init(state, self, coro, (PyObject *)loop, name, context,
                 eager_start) < 0) {
            Py_CLEAR(self);
        }
        return (PyObject *)self;
    }
    /* The same as init(), which must not be told apart from this. */
    self->loop = Py_NewRef(loop);
#if COMPAT_AWAITED_BY
    self->is_task = 1;
#endif
    self->coro = Py_NewRef(coro);
    self->log_destroy_pending = 1;
    self->context =
        context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
    if (self->context == NULL || set_name(self, state, name) < 0 ||
        Ready_push(&loop->ready, READY_STEP, (PyObject *)self, NULL, NULL) <
            0 ||
        Registry_add(state, self) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* What it answers. */

static PyObject *
Task_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *future;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError,
                        "task_wakeup() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_UnpackTuple(args, "task_wakeup", 1, 1, &future)) {
        return NULL;
    }
    return Task_wakeup_now(self, future);
}

/* Life. */

static int
Task_traverse(PyObject *op, visitproc visit, void *arg)
{
    TaskObject *self = (TaskObject *)op;

    Py_VISIT(self->fut_waiter);
    Py_VISIT(self->coro);
    Py_VISIT(self->name);
    Py_VISIT(self->context);
    return Future_traverse(op, visit, arg);
}

static int
Task_clear(PyObject *op)
{
    TaskObject *self = (TaskObject *)op;

    Py_CLEAR(self->fut_waiter);
    Py_CLEAR(self->coro);
    Py_CLEAR(self->name);
    Py_CLEAR(self->context);
    return Future_clear(op);
}

static void
Task_dealloc(PyObject *op)
{
    TaskObject *self = (TaskObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    module_state *state;

    /* Of a done task without an unread exception the finalizer says
       nothing. */
    if (((self->state == FUTURE_PENDING && self->log_destroy_pending) ||
         self->log_tb) &&
        PyObject_CallFinalizerFromDealloc(op) < 0) {
        return; /* resurrected */
    }
    Registry_remove(self);
    PyObject_GC_UnTrack(op);
    if (*(PyObject **)((char *)op + type->tp_weaklistoffset) != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)Task_clear(op);
    state = state_of_exact(type);
    /* A finalized object is never finalized again: it must not come back as
       another one. */
    if (state != NULL && type == state->TaskType &&
        state->free_tasks.count < FREE_LIST_MAX &&
        !PyObject_GC_IsFinalized(op)) {
        state->free_tasks.objects[state->free_tasks.count++] = op;
    }
    else {
        type->tp_free(op);
    }
    Py_DECREF(type);
}

#if !COMPAT_TASKS_IN_THREAD
/* A WeakSet loses a task before the task's finalizer runs, and the exception
   handler may resurrect it.  So does our list. */
static void
Task_finalize(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    Registry_remove((TaskObject *)op);
    while (type->tp_dealloc != Task_dealloc) {
        type = type->tp_base;
    }
    type->tp_base->tp_finalize(op);
}
#endif

PyDoc_STRVAR(
    Task_doc,
#if COMPAT_EAGER_START
    "Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n"
#elif COMPAT_TASK_CONTEXT
    "Task(coro, *, loop=None, name=None, context=None)\n"
#else
    "Task(coro, *, loop=None, name=None)\n"
#endif
    "--\n\n"
    "An asyncio.Task that an ouroloop.Loop steps without a Handle each.\n\n"
    "Loop.create_task() makes them.  Raise TypeError if coro is no "
    "coroutine.");

static PyType_Slot Task_slots[] = {
    {Py_tp_doc, (void *)Task_doc},
    {Py_tp_methods, FUTURE_SHARED_METHODS},
    {Py_tp_getset, Future_shared_getset},
    {Py_tp_init, Task_init},
    {Py_tp_call, Task_call},
    {Py_tp_iter, Future_iter},
    {Py_am_await, Future_iter},
    {Py_tp_traverse, Task_traverse},
    {Py_tp_clear, Task_clear},
#if !COMPAT_TASKS_IN_THREAD
    {Py_tp_finalize, Task_finalize},
#endif
    {Py_tp_dealloc, Task_dealloc},
    {0, NULL},
};

static PyType_Spec Task_spec = {
    .name = "ouroloop.Task",
    .basicsize = sizeof(TaskObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Task_slots,
};

int
Task_setup_type(PyObject *module, module_state *state)
{
    PyObject *stock = (PyObject *)state->stock.TaskType;

    if (!state->stock.fast_types) {
        return PyModule_AddObjectRef(module, "Task", stock);
    }
    PyObject *bases = PyTuple_Pack(2, stock, (PyObject *)state->FutureType);
    if (bases == NULL) {
        return -1;
    }
    state->TaskType =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &Task_spec, bases);
    Py_DECREF(bases);
    return state->TaskType == NULL
        ? -1
        : PyModule_AddObjectRef(module, "Task", (PyObject *)state->TaskType);
}

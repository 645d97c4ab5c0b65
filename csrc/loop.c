/* The Loop type: asyncio's methods that run per callback.  The rest of the
   event loop is the standard library's; pkg/ouroloop/loop.py puts both
   together.  Attributes that asyncio.BaseEventLoop keeps on the instance and
   that C reads (_debug, _closed, ...) are members of our struct. */
#include "ouroloop.h"

/* call_soon() and its kin: required arguments, by position or by name, then
 *args for the callback, and context by name only. */
typedef struct {
    const char *method;
    const char *names[2];
    Py_ssize_t required;
} call_spec;

/* What a call gave, in order: the required ones, then *args. */
typedef struct {
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *context;  /* borrowed; may be NULL */
    PyObject **by_name; /* owned array behind args, if there had to be one */
} call_args;

static PyObject *
find_keyword(PyObject *const *values, PyObject *kwnames, const char *name)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(key, name) == 0) {
            return values[i];
        }
    }
    return NULL;
}

/* Required arguments given by name: line all of them up in an array. */
static int
take_keywords(const call_spec *spec, PyObject *kwnames, call_args *call)
{
    PyObject *const *values = call->args + call->nargs;
    Py_ssize_t known = call->context != NULL;
    Py_ssize_t count = Py_MAX(call->nargs, spec->required);

    call->by_name = PyMem_New(PyObject *, count);
    if (call->by_name == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = i < spec->required
            ? find_keyword(values, kwnames, spec->names[i])
            : NULL;
        known += value != NULL;
        if (i >= call->nargs) {
            call->by_name[i] = value;
            continue;
        }
        if (value != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "BaseEventLoop.%s() got multiple values for "
                         "argument '%s'",
                         spec->method, spec->names[i]);
            return -1;
        }
        call->by_name[i] = call->args[i];
    }
    for (Py_ssize_t i = 0;
         known < PyTuple_GET_SIZE(kwnames) && i < PyTuple_GET_SIZE(kwnames);
         i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        bool expected = PyUnicode_CompareWithASCIIString(key, "context") == 0;
        for (Py_ssize_t k = 0; k < spec->required; k++) {
            expected = expected ||
                PyUnicode_CompareWithASCIIString(key, spec->names[k]) == 0;
        }
        if (!expected) {
            PyErr_Format(PyExc_TypeError,
                         "BaseEventLoop.%s() got an unexpected keyword "
                         "argument '%U'",
                         spec->method, key);
            return -1;
        }
    }
    call->args = call->by_name;
    call->nargs = count;
    return 0;
}

static int
check_required(const call_spec *spec, const call_args *call)
{
    const char *missing[2];
    Py_ssize_t count = 0;

    for (Py_ssize_t i = 0; i < spec->required; i++) {
        if (i >= call->nargs || call->args[i] == NULL) {
            missing[count++] = spec->names[i];
        }
    }
    if (count == 2) {
        PyErr_Format(PyExc_TypeError,
                     "BaseEventLoop.%s() missing 2 required positional "
                     "arguments: '%s' and '%s'",
                     spec->method, missing[0], missing[1]);
    }
    else if (count == 1) {
        PyErr_Format(PyExc_TypeError,
                     "BaseEventLoop.%s() missing 1 required positional "
                     "argument: '%s'",
                     spec->method, missing[0]);
    }
    return count == 0 ? 0 : -1;
}

/* Fill `call`.  by_name is to be freed whatever is returned. */
static int
parse_call(const call_spec *spec, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames, call_args *call)
{
    *call = (call_args){.args = args, .nargs = nargs};
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        call->context = find_keyword(args + nargs, kwnames, "context");
        if ((call->context == NULL || PyTuple_GET_SIZE(kwnames) > 1) &&
            take_keywords(spec, kwnames, call) < 0) {
            return -1;
        }
    }
    return check_required(spec, call);
}

/* Debug mode's checks, by asyncio's own methods.  Runs Python. */
static int
check_call(LoopObject *self, PyObject *callback, const char *method,
           bool check_thread)
{
    PyObject *value;

    if (check_thread) {
        value = PyObject_CallMethod((PyObject *)self, "_check_thread", NULL);
        if (value == NULL) {
            return -1;
        }
        Py_DECREF(value);
    }
    value = PyObject_CallMethod((PyObject *)self, "_check_callback", "Os",
                                callback, method);
    if (value == NULL) {
        return -1;
    }
    Py_DECREF(value);
    return 0;
}

/* call_soon() and call_soon_threadsafe(): a new Handle on the queue. */
static PyObject *
call_soon(LoopObject *self, const call_spec *spec, bool check_thread,
          PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    HandleObject *handle = NULL;
    call_args call;

    if (parse_call(spec, args, nargs, kwnames, &call) < 0 ||
        Fds_check_open(self) < 0 ||
        (self->debug &&
         check_call(self, call.args[0], spec->method, check_thread) < 0)) {
        goto done;
    }
    handle = (check_thread ? Handle_new : ThreadSafeHandle_new)(
        self, call.args[0], call.args + 1, call.nargs - 1, call.context);
    if (handle != NULL &&
        Ready_push(&self->ready, READY_HANDLE, (PyObject *)handle, NULL,
                   NULL) < 0) {
        Py_CLEAR(handle);
    }
done:
    PyMem_Free(call.by_name);
    return (PyObject *)handle;
}

static PyObject *
Loop_call_soon(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const call_spec spec = {"call_soon", {"callback"}, 1};
    return call_soon(self, &spec, true, args, nargs, kwnames);
}

static PyObject *
Loop_call_soon_threadsafe(LoopObject *self, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames)
{
    static const call_spec spec = {"call_soon_threadsafe", {"callback"}, 1};
    /* The GIL makes the ready queue itself the inbox of other threads. */
    PyObject *handle = call_soon(self, &spec, false, args, nargs, kwnames);
    if (handle != NULL) {
        Loop_wake(self);
    }
    return handle;
}

/* New TimerHandle in the heap.  when_object may be NULL. */
static PyObject *
call_at(LoopObject *self, double when, PyObject *when_object,
        const call_args *call)
{
    PyObject *callback = call->args[1];

    if (Fds_check_open(self) < 0 ||
        (self->debug && check_call(self, callback, "call_at", true) < 0)) {
        return NULL;
    }
    TimerHandleObject *timer =
        TimerHandle_new(self, when, when_object, callback, call->args + 2,
                        call->nargs - 2, call->context);
    if (timer != NULL && Timers_push(self, timer) < 0) {
        Py_CLEAR(timer);
    }
    return (PyObject *)timer;
}

static PyObject *
call_later(LoopObject *self, const call_args *call)
{
    PyObject *delay = call->args[0];
    PyObject *now_object = NULL, *when_object = NULL, *result = NULL;

    if (COMPAT_CALL_LATER_REFUSES_NONE && delay == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    double now = Loop_now(self); /* runs Python if it is the user's */
    if (now == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (PyFloat_CheckExact(delay)) {
        return call_at(self, now + PyFloat_AS_DOUBLE(delay), NULL, call);
    }
    /* Whatever can be added to a float may be a delay. */
    now_object = PyFloat_FromDouble(now);
    when_object = now_object == NULL ? NULL : PyNumber_Add(now_object, delay);
    double when = when_object == NULL ? -1.0 : PyFloat_AsDouble(when_object);
    if (when != -1.0 || !PyErr_Occurred()) {
        result = call_at(self, when, when_object, call);
    }
    Py_XDECREF(now_object);
    Py_XDECREF(when_object);
    return result;
}

static PyObject *
Loop_call_later(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const call_spec spec = {"call_later", {"delay", "callback"}, 2};
    call_args call;
    PyObject *result = NULL;

    if (parse_call(&spec, args, nargs, kwnames, &call) == 0) {
        result = call_later(self, &call);
    }
    PyMem_Free(call.by_name);
    return result;
}

static PyObject *
Loop_call_at(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames)
{
    static const call_spec spec = {"call_at", {"when", "callback"}, 2};
    call_args call;
    PyObject *result = NULL;

    if (parse_call(&spec, args, nargs, kwnames, &call) < 0) {
        goto done;
    }
    if (call.args[0] == Py_None) {
        if (COMPAT_CALL_LATER_REFUSES_NONE) {
            PyErr_SetString(PyExc_TypeError, "when cannot be None");
        }
        else {
            PyErr_SetNone(PyExc_AssertionError); /* of 3.10's TimerHandle */
        }
        goto done;
    }
    double when = PyFloat_AsDouble(call.args[0]);
    if (when != -1.0 || !PyErr_Occurred()) {
        result = call_at(self, when, call.args[0], &call);
    }
done:
    PyMem_Free(call.by_name);
    return result;
}

static PyObject *
Loop_time(LoopObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble((double)uv_hrtime() / 1e9);
}

static PyObject *
Loop_create_future(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return Future_create(self);
}

/* Not what the fast path knows: a task factory, or arguments of a newer
   asyncio.  Its own create_task() does what it does on this version. */
static PyObject *
create_task_by_stock(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    PyObject *bound =
        PyObject_GetAttrString(self->state->BaseEventLoop, "create_task");
    PyObject *result = NULL;
    Py_ssize_t count = nargs;

    if (kwnames != NULL) {
        count += PyTuple_GET_SIZE(kwnames);
    }
    PyObject **all = PyMem_New(PyObject *, count + 1);
    if (bound == NULL || all == NULL) {
        goto done;
    }
    all[0] = (PyObject *)self;
    for (Py_ssize_t i = 0; i < count; i++) {
        all[i + 1] = args[i];
    }
    result = PyObject_Vectorcall(bound, all, nargs + 1, kwnames);
done:
    Py_XDECREF(bound);
    PyMem_Free(all);
    return result;
}

static PyObject *
Loop_create_task(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    module_state *state = self->state;
    PyObject *coro = nargs == 1 ? args[0] : NULL;
    PyObject *name = NULL, *context = NULL;
    bool eager_start = false;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);

    if (nargs > 1 ||
        (self->task_factory != NULL && self->task_factory != Py_None) ||
        Future_replacement(state->tasks, state->str_Task,
                           state->stock.TaskType, state->TaskType) != NULL) {
        return create_task_by_stock(self, args, nargs, kwnames);
    }
    for (Py_ssize_t i = 0; i < nkw; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        PyObject *value = args[nargs + i];
        if (key == state->str_name) {
            name = value == Py_None ? NULL : value;
        }
        else if (COMPAT_TASK_CONTEXT && key == state->str_context) {
            context = value == Py_None ? NULL : value;
        }
        else if (state->task_kwargs && key == state->str_eager_start) {
            int truth = PyObject_IsTrue(value);
            if (truth < 0) {
                return NULL;
            }
            eager_start = truth;
        }
        else if (key == state->str_coro && coro == NULL) {
            coro = value;
        }
        else {
            return create_task_by_stock(self, args, nargs, kwnames);
        }
    }
    if (coro == NULL) {
        return create_task_by_stock(self, args, nargs, kwnames);
    }
    if (Fds_check_open(self) < 0) {
        return NULL;
    }
    return Task_create(self, coro, name, context, eager_start);
}

static PyObject *
Loop_stop(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    self->stopping = true;
    Py_RETURN_NONE;
}

static PyObject *
Loop_is_running(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->thread_id != NULL &&
                           self->thread_id != Py_None);
}

static PyObject *
Loop_is_closed(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closed);
}

static PyObject *
Loop_get_debug(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->debug);
}

static PyObject *
Loop__run_once(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (Fds_check_open(self) < 0 || Loop_turn(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Loop__run(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (Fds_check_open(self) < 0 || Loop_run(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Loop__close_uv(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (Loop_close_uv(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Loop__write_to_self(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->uv_open) {
        uv_async_send(&self->wake);
    }
    Py_RETURN_NONE;
}

static PyObject *
Loop__signal_fd(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    int fd = Signals_fd(self);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *
Loop__attach_signals(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (Signals_attach(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Loop__detach_signals(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (Signals_detach(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Append the type's name of a uvhandle that is not the loop's own. */
static void
append_name(uv_handle_t *uv, void *list)
{
    LoopObject *loop = CONTAINER_OF(uv->loop, LoopObject, uv);

    if (uv_is_closing(uv) || uv->data == loop) {
        return;
    }
    PyObject *name = PyUnicode_FromString(uv_handle_type_name(uv->type));
    if (name == NULL || PyList_Append(list, name) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(name);
}

static PyObject *
Loop__open_handles(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);

    if (list != NULL && self->uv_open) {
        uv_walk(&self->uv, append_name, list);
    }
    return list;
}

/* Life. */

/* Does the type or the instance have a method of its own in the place of the
   one that C would run? */
static bool
is_replaced(LoopObject *self, PyObject *name)
{
    PyObject *ours = _PyType_Lookup(self->state->LoopType, name);
    return _PyType_Lookup(Py_TYPE(self), name) != ours;
}

int
Loop_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    LoopObject *self = (LoopObject *)op;
    module_state *state = self->state;

    if (PyObject_GenericSetAttr(op, name, value) < 0) {
        return -1;
    }
    if (PyUnicode_Compare(name, state->str_call_soon) == 0) {
        self->custom_call_soon = value != NULL || is_replaced(self, name);
    }
    else if (PyUnicode_Compare(name, state->str_create_future) == 0) {
        self->custom_create_future = value != NULL || is_replaced(self, name);
    }
    else if (PyUnicode_Compare(name, state->str_time) == 0) {
        self->custom_time = value != NULL || is_replaced(self, name);
    }
    return 0;
}

static PyObject *
Loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
         PyObject *Py_UNUSED(kwargs))
{
    LoopObject *self = (LoopObject *)type->tp_alloc(type, 0);

    if (self == NULL) {
        return NULL;
    }
    /* Until BaseEventLoop.__init__() says otherwise: its __del__() must leave
       alone what was never initialised. */
    self->closed = true;
    self->timers.armed_for = Py_HUGE_VAL;
    self->signal_fds[0] = self->signal_fds[1] = -1;
    self->outer_wakeup_fd = -1;
    self->state = state_of((PyObject *)self);
    if (self->state == NULL || Run_init(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->custom_call_soon = is_replaced(self, self->state->str_call_soon);
    self->custom_create_future =
        is_replaced(self, self->state->str_create_future);
    self->custom_time = is_replaced(self, self->state->str_time);
    return (PyObject *)self;
}

static int
Loop_traverse(LoopObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->current_task);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->current_handle);
    Py_VISIT(self->thread_id);
    Py_VISIT(self->error);
    int result = Ready_traverse(&self->ready, visit, arg);
    if (result == 0) {
        result = Timers_traverse(&self->timers, visit, arg);
    }
    if (result == 0) {
        result = Fds_traverse(self, visit, arg);
    }
    if (result == 0) {
        result = Dns_traverse(self, visit, arg);
    }
    return result;
}

static int
Loop_clear(LoopObject *self)
{
    Py_CLEAR(self->current_task);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->current_handle);
    Py_CLEAR(self->thread_id);
    Py_CLEAR(self->error);
    Ready_clear(&self->ready);
    Timers_clear(self);
    return 0;
}

static void
Loop_dealloc(LoopObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)Loop_clear(self);
    /* Only after a failed __init__() or an overridden close(). */
    if (Loop_close_uv(self) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
Loop_get_debug_attribute(LoopObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->debug);
}

static int
Loop_set_debug_attribute(LoopObject *self, PyObject *value,
                         void *Py_UNUSED(closure))
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    self->debug = truth;
    return 0;
}

PyDoc_STRVAR(Loop_doc,
"The part of ouroloop.Loop that is C; see asyncio.BaseEventLoop.");
PyDoc_STRVAR(call_soon_doc,
"call_soon($self, callback, *args, context=None)\n--\n\n"
"Call callback(*args) in the loop's next turn and return its Handle.\n\n"
"context: the contextvars.Context to run in; None: a copy of the current\n"
"one.  Not for other threads; see call_soon_threadsafe().\n"
"Raise RuntimeError if the loop is closed.");
PyDoc_STRVAR(call_soon_threadsafe_doc,
"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
"call_soon() for any thread: it wakes the loop.");
PyDoc_STRVAR(call_later_doc,
"call_later($self, delay, callback, *args, context=None)\n--\n\n"
"Call callback(*args) after delay seconds and return its TimerHandle.\n\n"
"Never early.  Zero or a negative delay means the next turn.\n"
"Raise TypeError for a delay that is not a number, RuntimeError if the loop\n"
"is closed.");
PyDoc_STRVAR(call_at_doc,
"call_at($self, when, callback, *args, context=None)\n--\n\n"
"call_later() with an absolute time, in seconds on the clock of time().");
PyDoc_STRVAR(time_doc,
"time($self, /)\n--\n\n"
"Return the time of the loop's clock in seconds; it is time.monotonic().");
PyDoc_STRVAR(create_future_doc,
"create_future($self, /)\n--\n\n"
"Return a new pending Future of this loop.");
PyDoc_STRVAR(create_task_doc,
"create_task($self, coro, " COMPAT_CREATE_TASK_ARGUMENTS ")\n--\n\n"
"Return a Task that runs the coroutine; see\n"
"asyncio.BaseEventLoop.create_task() for the arguments of this version.\n"
"Raise TypeError if coro is not a coroutine, RuntimeError if the loop is\n"
"closed.");
PyDoc_STRVAR(stop_doc,
"stop($self, /)\n--\n\n"
"Make run_forever() return after the current turn.");
PyDoc_STRVAR(is_running_doc,
"is_running($self, /)\n--\n\n"
"Return True while run_forever() or run_until_complete() runs.");
PyDoc_STRVAR(is_closed_doc,
"is_closed($self, /)\n--\n\n"
"Return True once close() was called.");
PyDoc_STRVAR(get_debug_doc,
"get_debug($self, /)\n--\n\n"
"Return True in debug mode.");
PyDoc_STRVAR(open_handles_doc,
"_open_handles($self, /)\n--\n\n"
"Return libuv's type names of the open handles that users caused.");

#define FAST(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef Loop_methods[] = {
    {"call_soon", FAST(Loop_call_soon), METH_FASTCALL | METH_KEYWORDS,
     call_soon_doc},
    {"call_soon_threadsafe", FAST(Loop_call_soon_threadsafe),
     METH_FASTCALL | METH_KEYWORDS, call_soon_threadsafe_doc},
    {"call_later", FAST(Loop_call_later), METH_FASTCALL | METH_KEYWORDS,
     call_later_doc},
    {"call_at", FAST(Loop_call_at), METH_FASTCALL | METH_KEYWORDS,
     call_at_doc},
    {"time", (PyCFunction)Loop_time, METH_NOARGS, time_doc},
    {"create_future", (PyCFunction)Loop_create_future, METH_NOARGS,
     create_future_doc},
    {"create_task", FAST(Loop_create_task), METH_FASTCALL | METH_KEYWORDS,
     create_task_doc},
    {"stop", (PyCFunction)Loop_stop, METH_NOARGS, stop_doc},
    {"is_running", (PyCFunction)Loop_is_running, METH_NOARGS, is_running_doc},
    {"is_closed", (PyCFunction)Loop_is_closed, METH_NOARGS, is_closed_doc},
    {"get_debug", (PyCFunction)Loop_get_debug, METH_NOARGS, get_debug_doc},
    {"_run", (PyCFunction)Loop__run, METH_NOARGS, NULL},
    {"_run_once", (PyCFunction)Loop__run_once, METH_NOARGS, NULL},
    {"_close_uv", (PyCFunction)Loop__close_uv, METH_NOARGS, NULL},
    {"_write_to_self", (PyCFunction)Loop__write_to_self, METH_NOARGS, NULL},
    {"_add_reader", FAST(Loop__add_reader), METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"_add_writer", FAST(Loop__add_writer), METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"_remove_reader", (PyCFunction)Loop__remove_reader, METH_O, NULL},
    {"_remove_writer", (PyCFunction)Loop__remove_writer, METH_O, NULL},
    {"_ensure_fd_no_transport", (PyCFunction)Loop__ensure_fd_no_transport,
     METH_O, NULL},
    {"_watched", (PyCFunction)Loop__watched, METH_O, NULL},
    {"_make_datagram_transport", FAST(Loop__make_datagram_transport),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_make_socket_transport", FAST(Loop__make_socket_transport),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_make_read_pipe_transport", FAST(Loop__make_read_pipe_transport),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_make_write_pipe_transport", FAST(Loop__make_write_pipe_transport),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_call_recv", FAST(Loop__call_recv), METH_FASTCALL, NULL},
    {"_call_recv_into", FAST(Loop__call_recv_into), METH_FASTCALL, NULL},
    {"_call_recvfrom", FAST(Loop__call_recvfrom), METH_FASTCALL, NULL},
    {"_call_recvfrom_into", FAST(Loop__call_recvfrom_into), METH_FASTCALL,
     NULL},
    {"_call_accept", FAST(Loop__call_accept), METH_FASTCALL, NULL},
    {"_call_sendall", FAST(Loop__call_sendall), METH_FASTCALL, NULL},
    {"_call_sendto", FAST(Loop__call_sendto), METH_FASTCALL, NULL},
    {"_call_connect", FAST(Loop__call_connect), METH_FASTCALL, NULL},
    {"_call_sendfile", FAST(Loop__call_sendfile), METH_FASTCALL, NULL},
    {"_start_serving", FAST(Loop__start_serving),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_lookup_addresses", FAST(Loop__lookup_addresses), METH_FASTCALL, NULL},
    {"_lookup_name", FAST(Loop__lookup_name), METH_FASTCALL, NULL},
    {"_signal_fd", (PyCFunction)Loop__signal_fd, METH_NOARGS, NULL},
    {"_attach_signals", (PyCFunction)Loop__attach_signals, METH_NOARGS, NULL},
    {"_detach_signals", (PyCFunction)Loop__detach_signals, METH_NOARGS, NULL},
    {"_open_handles", (PyCFunction)Loop__open_handles, METH_NOARGS,
     open_handles_doc},
    {NULL},
};

static PyMemberDef Loop_members[] = {
    {"_closed", T_BOOL, offsetof(LoopObject, closed), 0},
    {"_stopping", T_BOOL, offsetof(LoopObject, stopping), 0},
    {"_thread_id", T_OBJECT, offsetof(LoopObject, thread_id), 0},
    {"_task_factory", T_OBJECT, offsetof(LoopObject, task_factory), 0},
    {"_current_handle", T_OBJECT, offsetof(LoopObject, current_handle), 0},
    {NULL},
};

static PyGetSetDef Loop_getset[] = {
    {"_debug", (getter)Loop_get_debug_attribute,
     (setter)Loop_set_debug_attribute, NULL, NULL},
    {NULL},
};

static PyType_Slot Loop_slots[] = {
    {Py_tp_doc, (void *)Loop_doc}, {Py_tp_new, Loop_new},
    {Py_tp_dealloc, Loop_dealloc}, {Py_tp_traverse, Loop_traverse},
    {Py_tp_clear, Loop_clear},     {Py_tp_setattro, Loop_setattro},
    {Py_tp_methods, Loop_methods}, {Py_tp_members, Loop_members},
    {Py_tp_getset, Loop_getset},   {0, NULL},
};

static PyType_Spec Loop_spec = {
    .name = "ouroloop._core.Loop",
    .basicsize = sizeof(LoopObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Loop_slots,
};

int
Loop_setup_type(PyObject *module, module_state *state)
{
    state->LoopType =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &Loop_spec, NULL);
    return state->LoopType == NULL ? -1
                                   : PyModule_AddType(module, state->LoopType);
}

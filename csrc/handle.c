/* Handle and TimerHandle: one callback with its arguments and context.

   They pass for asyncio's (isinstance, attributes, repr, comparison), but are
   types of their own, without the GC header and without tracking: ten thousand
   timers would otherwise be traversed again and again.  What they hold is let
   go as soon as the callback has run or is cancelled, and is visited by the
   loop while it waits there; so no cycle through a handle lives on.  Who holds
   a handle and nothing else of its loop does not keep that from being
   collected, and closed: nobody could run it any more. */
#include "ouroloop.h"

/* Calls. */

/* callback(*args) as a new reference.  Runs Python. */
static PyObject *
call_with(PyObject *callback, PyObject *args, Py_ssize_t nargs)
{
    if (nargs == 0) {
        return PyObject_CallNoArgs(callback);
    }
    if (nargs == 1) {
        return PyObject_CallOneArg(callback, args);
    }
    return PyObject_Call(callback, args, NULL);
}

PyObject *
Handle_args_tuple(PyObject *args, Py_ssize_t nargs)
{
    if (nargs > 1) {
        return Py_NewRef(args);
    }
    return nargs == 0 ? PyTuple_New(0) : PyTuple_Pack(1, args);
}

/* context.run(callback, *args) for what is not exactly a Context: asyncio
   asks no more of it than this method. */
static PyObject *
call_by_run(PyObject *context, PyObject *callback, PyObject *args,
            Py_ssize_t nargs)
{
    PyObject *run = NULL, *all = NULL, *value = NULL;

    run = PyObject_GetAttrString(context, "run");
    if (run == NULL) {
        goto done;
    }
    all = PyTuple_New(nargs + 1);
    if (all == NULL) {
        goto done;
    }
    PyTuple_SET_ITEM(all, 0, Py_NewRef(callback));
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyObject *arg = nargs == 1 ? args : PyTuple_GET_ITEM(args, i);
        PyTuple_SET_ITEM(all, i + 1, Py_NewRef(arg));
    }
    value = PyObject_Call(run, all, NULL);
done:
    Py_XDECREF(run);
    Py_XDECREF(all);
    return value;
}

static PyObject *
call_within(PyObject *context, PyObject *callback, PyObject *args,
            Py_ssize_t nargs)
{
    if (!PyContext_CheckExact(context)) {
        return call_by_run(context, callback, args, nargs);
    }
    if (PyContext_Enter(context) < 0) {
        return NULL;
    }
    PyObject *value = call_with(callback, args, nargs);
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

/* "f(1, 2) at file.py:3", by asyncio's own function. */
static PyObject *
describe_call(LoopObject *loop, PyObject *callback, PyObject *args)
{
    PyObject *describe = loop->state->_format_callback_source;
    PyObject *positional = NULL, *keywords = NULL, *text = NULL;
    PyObject *defaults = PyObject_GetAttrString(describe, "__kwdefaults__");

    if (defaults == NULL) {
        return NULL;
    }
    positional = PyTuple_Pack(2, callback, args);
    /* Since 3.13 it shows arguments in debug mode only. */
    if (positional != NULL && defaults != Py_None) {
        keywords =
            Py_BuildValue("{s:O}", "debug", loop->debug ? Py_True : Py_False);
    }
    if (positional != NULL && (keywords != NULL || defaults == Py_None)) {
        text = PyObject_Call(describe, positional, keywords);
    }
    Py_DECREF(defaults);
    Py_XDECREF(positional);
    Py_XDECREF(keywords);
    return text;
}

/* The callback raised: tell the exception handler.  -1 when an exception must
   leave run_forever(): this one, or one of the handler's. */
static int
report_failure(HandleObject *self, PyObject *callback, PyObject *args,
               Py_ssize_t nargs)
{
    LoopObject *loop = self->loop;
    PyObject *exc = NULL, *tuple = NULL, *text = NULL, *message = NULL;
    PyObject *context = NULL, *value = NULL;

    if (is_fatal()) {
        return -1;
    }
    exc = PyErr_GetRaisedException();
    tuple = Handle_args_tuple(args, nargs);
    text = tuple == NULL ? NULL : describe_call(loop, callback, tuple);
    message = text == NULL
        ? NULL
        : PyUnicode_FromFormat("Exception in callback %U", text);
    if (message == NULL) {
        goto done;
    }
    context = Py_BuildValue("{s:O,s:O,s:O}", "message", message, "exception",
                            exc, "handle", self);
    if (context == NULL ||
        (self->source_traceback != NULL &&
         PyDict_SetItem(context, loop->state->str_source_traceback,
                        self->source_traceback) < 0)) {
        goto done;
    }
    handled_exception outer;
    begin_handling(exc, &outer);
    value = PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->str_call_exception_handler, context);
    end_handling(&outer);
done:
    Py_XDECREF(exc);
    Py_XDECREF(tuple);
    Py_XDECREF(text);
    Py_XDECREF(message);
    Py_XDECREF(context);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

int
Handle_run(HandleObject *self)
{
    if (self->cancelled || self->callback == NULL) {
        return 0;
    }
    /* The callback may cancel its own handle, and turn the loop. */
    PyObject *callback = Py_NewRef(self->callback);
    PyObject *context = Py_NewRef(self->context);
    PyObject *args = Py_XNewRef(self->args);
    Py_ssize_t nargs = self->nargs;
    int result = 0;

    ThreadSafeHandleObject *thread_safe =
        Py_TYPE(self) == self->loop->state->ThreadSafeHandleType
        ? (ThreadSafeHandleObject *)self
        : NULL;
    if (thread_safe != NULL) {
        thread_safe->running_in = PyThread_get_thread_ident();
    }
    PyObject *value = call_within(context, callback, args, nargs);
    if (thread_safe != NULL) {
        thread_safe->running_in = 0;
        if (thread_safe->finished != NULL) {
            PyThread_release_lock(thread_safe->finished);
        }
    }
    if (value == NULL) {
        result = report_failure(self, callback, args, nargs);
    }
    else {
        Py_DECREF(value);
    }
    Py_DECREF(callback);
    Py_DECREF(context);
    Py_XDECREF(args);
    return result;
}

int
report_call(LoopObject *loop, PyObject *callback, PyObject *arg,
            PyObject *context)
{
    if (is_fatal()) {
        return -1;
    }
    Py_ssize_t nargs = arg == NULL ? 0 : 1;
    PyObject *exc = PyErr_GetRaisedException();
    HandleObject *handle = Handle_new(loop, callback, &arg, nargs, context);
    if (handle == NULL) {
        Py_DECREF(exc);
        return -1;
    }
    PyErr_SetRaisedException(exc);
    int result = report_failure(handle, callback, arg, nargs);
    Py_DECREF(handle);
    return result;
}

int
call_in_context(LoopObject *loop, PyObject *callback, PyObject *arg,
                PyObject *context)
{
    PyObject *value = call_within(context, callback, arg, 1);
    if (value == NULL) {
        return report_call(loop, callback, arg, context);
    }
    Py_DECREF(value);
    return 0;
}

/* Life. */

static void *
allocate(PyTypeObject *type, void **free_list, int *free_count)
{
    if (*free_list == NULL) {
        return type->tp_alloc(type, 0);
    }
    PyObject *self = *free_list;
    /* A free handle's callback field links to the next one. */
    *free_list = ((HandleObject *)self)->callback;
    --*free_count;
    return PyObject_Init(self, type);
}

/* Fill a fresh handle.  -1 with an exception; the caller drops it then. */
static int
set_up(HandleObject *self, LoopObject *loop, PyObject *callback,
       PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    self->weakrefs = NULL;
    self->loop = (LoopObject *)Py_NewRef(loop);
    self->callback = Py_NewRef(callback);
    self->args = NULL;
    self->context = NULL;
    self->source_traceback = NULL;
    self->repr = NULL;
    self->nargs = nargs;
    self->cancelled = self->stays = false;
    if (context != NULL && context != Py_None) {
        self->context = Py_NewRef(context);
    }
    else if ((self->context = PyContext_CopyCurrent()) == NULL) {
        return -1;
    }
    if (nargs == 1) {
        self->args = Py_NewRef(args[0]);
    }
    else if (nargs > 1) {
        self->args = PyTuple_New(nargs);
        if (self->args == NULL) {
            return -1;
        }
        for (Py_ssize_t i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(self->args, i, Py_NewRef(args[i]));
        }
    }
    if (loop->debug) {
        self->source_traceback =
            PyObject_CallNoArgs(loop->state->extract_stack);
        if (self->source_traceback == NULL) {
            return -1;
        }
    }
    return 0;
}

HandleObject *
Handle_new(LoopObject *loop, PyObject *callback, PyObject *const *args,
           Py_ssize_t nargs, PyObject *context)
{
    module_state *state = loop->state;
    HandleObject *self = allocate(state->HandleType, &state->free_handles,
                                  &state->free_handle_count);

    if (self != NULL &&
        set_up(self, loop, callback, args, nargs, context) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

TimerHandleObject *
TimerHandle_new(LoopObject *loop, double when, PyObject *when_object,
                PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                PyObject *context)
{
    module_state *state = loop->state;
    TimerHandleObject *self = allocate(
        state->TimerHandleType, &state->free_timers, &state->free_timer_count);

    if (self == NULL) {
        return NULL;
    }
    self->when_object = Py_XNewRef(when_object);
    self->when = when;
    self->scheduled = false;
    if (set_up(&self->handle, loop, callback, args, nargs, context) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

HandleObject *
ThreadSafeHandle_new(LoopObject *loop, PyObject *callback,
                     PyObject *const *args, Py_ssize_t nargs,
                     PyObject *context)
{
    PyTypeObject *type = loop->state->ThreadSafeHandleType;
    HandleObject *self;

    if (!COMPAT_THREAD_SAFE_HANDLE) {
        return Handle_new(loop, callback, args, nargs, context);
    }
    self = (HandleObject *)type->tp_alloc(type, 0);
    if (self != NULL &&
        set_up(self, loop, callback, args, nargs, context) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

void
Handle_release(HandleObject *self)
{
    Py_CLEAR(self->callback);
    Py_CLEAR(self->args);
}

int
Handle_visit_as_part(HandleObject *self, visitproc visit, void *arg)
{
    /* That of a descriptor may wait in the ready queue as well, and what is
       visited twice would be taken for garbage. */
    if (self->stays && Py_REFCNT(self) > 1) {
        return 0;
    }
    Py_VISIT(self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->args);
    Py_VISIT(self->context);
    return 0;
}

enum { FREE_MAX = 256 };

/* Drop what the handle holds; true if it went to the free list. */
static bool
recycle(HandleObject *self, void **free_list, int *free_count)
{
    PyTypeObject *type = Py_TYPE(self);
    LoopObject *loop = self->loop;

    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Handle_release(self);
    Py_CLEAR(self->context);
    Py_CLEAR(self->source_traceback);
    Py_CLEAR(self->repr);
    bool kept = *free_count < FREE_MAX;
    if (kept) {
        self->callback = *free_list;
        *free_list = self;
        ++*free_count;
        Py_DECREF(type);
    }
    Py_DECREF(loop);
    return kept;
}

void
Handle_dealloc(HandleObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    module_state *state = self->loop->state;

    if (!recycle(self, &state->free_handles, &state->free_handle_count)) {
        type->tp_free(self);
        Py_DECREF(type);
    }
}

void
TimerHandle_dealloc(TimerHandleObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    module_state *state = self->handle.loop->state;

    Py_CLEAR(self->when_object);
    if (!recycle(&self->handle, &state->free_timers,
                 &state->free_timer_count)) {
        type->tp_free(self);
        Py_DECREF(type);
    }
}

void
ThreadSafeHandle_dealloc(ThreadSafeHandleObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    int full = FREE_MAX; /* there is no free list of these */

    if (self->finished != NULL) {
        PyThread_free_lock(self->finished);
    }
    (void)recycle(&self->handle, NULL, &full);
    type->tp_free(self);
    Py_DECREF(type);
}

void
Handle_free_lists_clear(module_state *state)
{
    void **lists[] = {&state->free_handles, &state->free_timers};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(lists); i++) {
        while (*lists[i] != NULL) {
            HandleObject *self = *lists[i];
            *lists[i] = self->callback;
            PyObject_Free(self);
        }
    }
    state->free_handle_count = state->free_timer_count = 0;
}

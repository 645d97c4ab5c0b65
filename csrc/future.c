/* Future, and the iterator behind `await future`.

   A subclass of asyncio's C Future that uses its memory.  What runs often is
   done here; what is rare, or differs between versions, is asked of the base
   type's method, which sees a valid object of its own.

   A task that waits is in its future's callbacks as itself: it is callable,
   so that asyncio's code can run it like any callback, and recognized here,
   so that ours need not. */
#include "ouroloop.h"

module_state *
Future_state(PyObject *self)
{
    PyObject *loop = ((FutureObject *)self)->loop;
    return loop != NULL && Loop_check(loop) ? ((LoopObject *)loop)->state
                                            : state_of(self);
}

PyObject *
Future_call_stock(module_state *state, PyObject *name, PyObject *self,
                  PyObject *arg)
{
    PyObject *args[] = {self, arg};
    PyObject *method =
        PyObject_GetAttr((PyObject *)state->stock.FutureType, name);
    PyObject *result = method == NULL
        ? NULL
        : PyObject_Vectorcall(method, args, arg == NULL ? 1 : 2, NULL);

    Py_XDECREF(method);
    return result;
}

int
call_soon_by_name(module_state *state, PyObject *loop, PyObject *callback,
                  PyObject *arg, PyObject *context)
{
    PyObject *args[] = {loop, callback, arg, context};
    size_t count = 3;

    if (arg == NULL) {
        args[2] = context;
        count = 2;
    }
    PyObject *handle = PyObject_VectorcallMethod(
        state->str_call_soon, args, count, state->stock.context_kwname);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* A callable that wakes its __self__, named as asyncio's own. */
static PyMethodDef wakeup_method = {"task_wakeup", Task_wakeup_now, METH_O,
                                    NULL};

PyObject *
Future_new_wakeup(PyObject *task)
{
    return PyCFunction_New(&wakeup_method, task);
}

/* The task behind such a callable, borrowed; NULL: it is something else. */
static PyObject *
task_of_wakeup(PyObject *callable)
{
    return PyCFunction_CheckExact(callable) &&
            PyCFunction_GET_FUNCTION(callable) == Task_wakeup_now
        ? PyCFunction_GET_SELF(callable)
        : NULL;
}

/* Queue one callback of a future that is done.  May run Python. */
static int
queue_callback(FutureObject *self, PyObject *loop, PyObject *callback,
               PyObject *context)
{
    PyObject *wakeup;
    module_state *state;

    if (Loop_check(loop) && Loop_is_direct((LoopObject *)loop) &&
        PyContext_CheckExact(context)) {
        ready_queue *ready = &((LoopObject *)loop)->ready;
        state = ((LoopObject *)loop)->state;
        return Py_TYPE(callback) == state->TaskType
            ? Ready_push(ready, READY_WAKEUP, callback, (PyObject *)self, NULL)
            : Ready_push(ready, READY_CALL, callback, (PyObject *)self,
                         context);
    }
    state = Future_state((PyObject *)self);
    if (state == NULL) {
        return -1;
    }
    if (Py_TYPE(callback) != state->TaskType) {
        return call_soon_by_name(state, loop, callback, (PyObject *)self,
                                 context);
    }
    /* Others look at a callback's __self__ to find the task. */
    wakeup = Future_new_wakeup(callback);
    if (wakeup == NULL) {
        return -1;
    }
    int result =
        call_soon_by_name(state, loop, wakeup, (PyObject *)self, context);
    Py_DECREF(wakeup);
    return result;
}

/* The future is done: queue its callbacks, in the order they were added. */
static int
queue_callbacks(FutureObject *self)
{
    PyObject *callback = self->callback0, *context = self->context0;
    PyObject *more = self->callbacks, *loop;
    int result = 0;

#if COMPAT_TASKS_IN_THREAD
    if (self->is_task) {
        Registry_remove((TaskObject *)self);
    }
#endif
    if (callback == NULL && more == NULL) {
        return 0;
    }
    /* A call_soon() of the user's may do anything to the future. */
    self->callback0 = self->context0 = self->callbacks = NULL;
    loop = Py_NewRef(self->loop);
    if (callback != NULL) {
        result = queue_callback(self, loop, callback, context);
        Py_DECREF(callback);
        Py_XDECREF(context);
    }
    if (more != NULL) {
        for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(more); i++) {
            PyObject *pair = PyList_GET_ITEM(more, i);
            result = queue_callback(self, loop, PyTuple_GET_ITEM(pair, 0),
                                    PyTuple_GET_ITEM(pair, 1));
        }
        Py_DECREF(more);
    }
    Py_DECREF(loop);
    return result;
}

int
Future_finish(FutureObject *self, PyObject *result)
{
    self->result = Py_NewRef(result);
    self->state = FUTURE_FINISHED;
    return queue_callbacks(self);
}

int
Future_fail(FutureObject *self, PyObject *exc)
{
    self->exception = Py_NewRef(exc);
    self->exception_tb = PyException_GetTraceback(exc);
    self->state = FUTURE_FINISHED;
    if (queue_callbacks(self) < 0) {
        return -1;
    }
    self->log_tb = 1;
    return 0;
}

int
Future_abort(FutureObject *self, PyObject *message)
{
    self->log_tb = 0;
    self->state = FUTURE_CANCELLED;
    Py_XSETREF(self->cancel_msg, Py_XNewRef(message));
    return queue_callbacks(self);
}

int
Future_add_callback(FutureObject *self, PyObject *callback, PyObject *context)
{
    PyObject *pair;
    int result = -1;

    if (self->state != FUTURE_PENDING) {
        return queue_callback(self, self->loop, callback, context);
    }
    if (self->callback0 == NULL && self->callbacks == NULL) {
        self->callback0 = Py_NewRef(callback);
        self->context0 = Py_NewRef(context);
        return 0;
    }
    pair = PyTuple_Pack(2, callback, context);
    if (pair == NULL) {
        return -1;
    }
    if (self->callbacks == NULL) {
        self->callbacks = PyList_New(0);
    }
    if (self->callbacks != NULL) {
        result = PyList_Append(self->callbacks, pair);
    }
    Py_DECREF(pair);
    return result;
}

/* Methods. */

static PyObject *
Future_result(FutureObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == FUTURE_FINISHED && self->result != NULL) {
        self->log_tb = 0;
        return Py_NewRef(self->result);
    }
    module_state *state = Future_state((PyObject *)self);
    return state == NULL
        ? NULL
        : Future_call_stock(state, state->str_result, (PyObject *)self, NULL);
}

static PyObject *
Future_done(FutureObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->loop != NULL &&
                           self->state != FUTURE_PENDING);
}

static PyObject *
Future_cancelled(FutureObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->loop != NULL &&
                           self->state == FUTURE_CANCELLED);
}

/* Have the base type's method refuse a call that ours does not understand,
   in the words of the running version. */
static PyObject *
call_stock_method(FutureObject *self, const char *name, PyObject *const *args,
                  Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *method = NULL, *result = NULL;
    PyObject **all = NULL;
    module_state *state = Future_state((PyObject *)self);
    Py_ssize_t count = nargs;

    if (kwnames != NULL) {
        count += PyTuple_GET_SIZE(kwnames);
    }
    if (state == NULL) {
        return NULL;
    }
    all = PyMem_New(PyObject *, count + 1);
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    all[0] = (PyObject *)self;
    for (Py_ssize_t i = 0; i < count; i++) {
        all[i + 1] = args[i];
    }
    method = PyObject_GetAttrString((PyObject *)state->stock.FutureType, name);
    if (method != NULL) {
        result = PyObject_Vectorcall(method, all, nargs + 1, kwnames);
        Py_DECREF(method);
    }
    PyMem_Free(all);
    return result;
}

static inline bool
has_keywords(PyObject *kwnames)
{
    return kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0;
}

/* The one keyword argument of a call with `positional` others, or NULL where
   it is not given; false: the call is not of that form. */
static bool
only_keyword(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t positional,
             PyObject *kwnames, const char *name, PyObject **value)
{
    *value = NULL;
    if (nargs != positional) {
        return false;
    }
    if (!has_keywords(kwnames)) {
        return true;
    }
    if (PyTuple_GET_SIZE(kwnames) != 1 ||
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), name) !=
            0) {
        return false;
    }
    *value = args[nargs];
    return true;
}

static PyObject *
Future_set_result(FutureObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    if (nargs != 1 || has_keywords(kwnames) || self->loop == NULL ||
        self->state != FUTURE_PENDING) {
        return call_stock_method(self, "set_result", args, nargs, kwnames);
    }
    if (Future_finish(self, args[0]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Future_set_exception(FutureObject *self, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames)
{
    /* What becomes of a class and of a StopIteration depends on the
       version. */
    if (nargs != 1 || has_keywords(kwnames) || self->loop == NULL ||
        self->state != FUTURE_PENDING || !PyExceptionInstance_Check(args[0]) ||
        PyErr_GivenExceptionMatches(args[0], PyExc_StopIteration)) {
        return call_stock_method(self, "set_exception", args, nargs, kwnames);
    }
    if (Future_fail(self, args[0]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Future_add_done_callback(FutureObject *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *context;

    if (self->loop == NULL ||
        !only_keyword(args, nargs, 1, kwnames, "context", &context)) {
        return call_stock_method(self, "add_done_callback", args, nargs,
                                 kwnames);
    }
    context = context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
    if (context == NULL) {
        return NULL;
    }
    int result = Future_add_callback(self, args[0], context);
    Py_DECREF(context);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Also takes the wake-up callables that _callbacks shows. */
static PyObject *
Future_remove_done_callback(FutureObject *self, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames)
{
    static const char name[] = "remove_done_callback";
    PyObject *task, *waiters;
    PyObject *result = call_stock_method(self, name, args, nargs, kwnames);

    task = result == NULL ? NULL : task_of_wakeup(args[0]);
    if (task != NULL) {
        waiters = call_stock_method(self, name, &task, 1, NULL);
        Py_SETREF(result,
                  waiters == NULL ? NULL : PyNumber_Add(result, waiters));
        Py_XDECREF(waiters);
    }
    return result;
}

static PyObject *
Future_cancel(FutureObject *self, PyObject *const *args, Py_ssize_t nargs,
              PyObject *kwnames)
{
    PyObject *message;

    if (nargs == 1 && !has_keywords(kwnames)) {
        message = args[0];
    }
    else if (!only_keyword(args, nargs, 0, kwnames, "msg", &message)) {
        return call_stock_method(self, "cancel", args, nargs, kwnames);
    }
    if (self->loop == NULL) {
        return call_stock_method(self, "cancel", args, nargs, kwnames);
    }
    self->log_tb = 0;
    if (self->state != FUTURE_PENDING) {
        Py_RETURN_FALSE;
    }
    if (Future_abort(self, message == NULL ? Py_None : message) < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

static int
append_callback(PyObject *list, module_state *state, PyObject *callback,
                PyObject *context)
{
    PyObject *pair, *shown;
    int result = -1;

    shown = Py_TYPE(callback) == state->TaskType ? Future_new_wakeup(callback)
                                                 : Py_NewRef(callback);
    pair = shown == NULL ? NULL : PyTuple_Pack(2, shown, context);
    if (pair != NULL) {
        result = PyList_Append(list, pair);
    }
    Py_XDECREF(shown);
    Py_XDECREF(pair);
    return result;
}

static PyObject *
Future_get_callbacks(FutureObject *self, void *Py_UNUSED(closure))
{
    PyObject *list;
    module_state *state;

    if (self->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Future object is not initialized.");
        return NULL;
    }
    if (self->callback0 == NULL && self->callbacks == NULL) {
        Py_RETURN_NONE;
    }
    state = Future_state((PyObject *)self);
    list = state == NULL ? NULL : PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    if (self->callback0 != NULL &&
        append_callback(list, state, self->callback0, self->context0) < 0) {
        Py_CLEAR(list);
    }
    for (Py_ssize_t i = 0; list != NULL && self->callbacks != NULL &&
         i < PyList_GET_SIZE(self->callbacks);
         i++) {
        PyObject *pair = PyList_GET_ITEM(self->callbacks, i);
        if (append_callback(list, state, PyTuple_GET_ITEM(pair, 0),
                            PyTuple_GET_ITEM(pair, 1)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

/* Life. */

int
Future_traverse(PyObject *op, visitproc visit, void *arg)
{
    FutureObject *self = (FutureObject *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->callback0);
    Py_VISIT(self->context0);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->exception);
    Py_VISIT(self->exception_tb);
    Py_VISIT(self->result);
    Py_VISIT(self->source_tb);
    Py_VISIT(self->cancel_msg);
    Py_VISIT(self->cancelled_exc);
#if COMPAT_ERROR_IN_PARTS
    Py_VISIT(self->cancelled_exc_type);
    Py_VISIT(self->cancelled_exc_tb);
#endif
#if COMPAT_AWAITED_BY
    Py_VISIT(self->awaited_by);
#endif
#if COMPAT_MANAGED_DICT
    return PyObject_VisitManagedDict(op, visit, arg);
#else
    Py_VISIT(self->dict);
    return 0;
#endif
}

int
Future_clear(PyObject *op)
{
    FutureObject *self = (FutureObject *)op;

    Py_CLEAR(self->loop);
    Py_CLEAR(self->callback0);
    Py_CLEAR(self->context0);
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->exception_tb);
    Py_CLEAR(self->result);
    Py_CLEAR(self->source_tb);
    Py_CLEAR(self->cancel_msg);
    Py_CLEAR(self->cancelled_exc);
#if COMPAT_ERROR_IN_PARTS
    Py_CLEAR(self->cancelled_exc_type);
    Py_CLEAR(self->cancelled_exc_tb);
#endif
#if COMPAT_AWAITED_BY
    Py_CLEAR(self->awaited_by);
    self->awaited_by_is_set = 0;
#endif
#if COMPAT_MANAGED_DICT
    PyObject_ClearManagedDict(op);
#else
    Py_CLEAR(self->dict);
#endif
    return 0;
}

static void
Future_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    module_state *state;

    /* Without an unread exception the finalizer does nothing. */
    if (((FutureObject *)op)->log_tb &&
        PyObject_CallFinalizerFromDealloc(op) < 0) {
        return; /* resurrected */
    }
    PyObject_GC_UnTrack(op);
    if (*(PyObject **)((char *)op + type->tp_weaklistoffset) != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)Future_clear(op);
    state = state_of_exact(type);
    /* A finalized object is never finalized again: it must not come back as
       another one. */
    if (state != NULL && type == state->FutureType &&
        state->free_futures.count < FREE_LIST_MAX &&
        !PyObject_GC_IsFinalized(op)) {
        state->free_futures.objects[state->free_futures.count++] = op;
    }
    else {
        type->tp_free(op);
    }
    Py_DECREF(type);
}

/* New, tracked by the caller; all fields after the head are zero. */
static FutureObject *
Future_alloc(module_state *state)
{
    FutureObject *self;

    if (state->free_futures.count > 0) {
        self = (FutureObject *)
                   state->free_futures.objects[--state->free_futures.count];
        (void)PyObject_Init((PyObject *)self, state->FutureType);
    }
    else {
        self = PyObject_GC_New(FutureObject, state->FutureType);
        if (self == NULL) {
            return NULL;
        }
    }
    memset((char *)self + sizeof(PyObject), 0,
           sizeof(FutureObject) - sizeof(PyObject));
    return self;
}

PyObject *
Future_replacement(PyObject *module, PyObject *name, PyTypeObject *stock,
                   PyTypeObject *own)
{
    PyObject *type = PyDict_GetItemWithError(PyModule_GetDict(module), name);

    if (type == (PyObject *)stock || type == (PyObject *)own) {
        return NULL;
    }
    return type;
}

PyObject *
Future_create(LoopObject *loop)
{
    module_state *state = loop->state;
    PyObject *type = (PyObject *)state->FutureType;
    PyObject *other =
        Future_replacement(state->futures, state->str_Future,
                           state->stock.FutureType, state->FutureType);

    if (other != NULL) {
        type = other;
    }
    else if (type != NULL && Loop_is_direct(loop)) {
        FutureObject *self = Future_alloc(state);
        if (self != NULL) {
            self->loop = Py_NewRef(loop);
            PyObject_GC_Track(self);
        }
        return (PyObject *)self;
    }
    if (type == NULL) {
        type = (PyObject *)state->stock.FutureType;
    }
    Py_INCREF(type); /* its module may lose it meanwhile */
    PyObject *kwargs = PyDict_New(), *result = NULL;
    if (kwargs != NULL &&
        PyDict_SetItem(kwargs, state->str_loop, (PyObject *)loop) == 0) {
        result = PyObject_Call(type, state->stock.no_args, kwargs);
    }
    Py_XDECREF(kwargs);
    Py_DECREF(type);
    return result;
}

int
Future_resolve(LoopObject *loop, PyObject *op, PyObject *result)
{
    module_state *state = loop->state;
    PyObject *value;

    if (Py_TYPE(op) == state->FutureType) {
        FutureObject *self = (FutureObject *)op;
        return self->state == FUTURE_PENDING ? Future_finish(self, result) : 0;
    }
    value = PyObject_CallMethodNoArgs(op, state->str_done);
    int done = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    if (done != 0) {
        return Py_MIN(done, 0);
    }
    value = PyObject_CallMethodOneArg(op, state->str_set_result, result);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

PyDoc_STRVAR(Future_doc,
             "Future(*, loop=None)\n--\n\n"
             "An asyncio.Future whose callbacks an ouroloop.Loop runs without "
             "a Handle each.\n\n"
             "loop: any event loop; None: the current one.  "
             "Loop.create_future() makes them.");

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

PyMethodDef Future_methods[] = {
    {"set_result", FAST(Future_set_result), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_result($self, result, /)\n--\n\n"
               "Mark the future done with a result.\n\n"
               "Raise InvalidStateError if it is done already.")},
    {"set_exception", FAST(Future_set_exception),
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_exception($self, exception, /)\n--\n\n"
               "Mark the future done with an exception.\n\n"
               "Raise InvalidStateError if it is done already, TypeError if "
               "that is no exception.")},
    {"cancel", FAST(Future_cancel), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("cancel($self, /, msg=None)\n--\n\n"
               "Cancel the future and schedule its callbacks.\n\n"
               "Return False, and do nothing, if it is done already.")},
    /* From here on Task has them too: FUTURE_SHARED_METHODS. */
    {"result", (PyCFunction)Future_result, METH_NOARGS,
     PyDoc_STR("result($self, /)\n--\n\n"
               "Return the result, or raise the exception, that was set.\n\n"
               "Raise CancelledError if the future was cancelled, "
               "InvalidStateError if it is not done.")},
    {"done", (PyCFunction)Future_done, METH_NOARGS,
     PyDoc_STR("done($self, /)\n--\n\n"
               "Return True if there is a result or an exception, or if the "
               "future was cancelled.")},
    {"cancelled", (PyCFunction)Future_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self, /)\n--\n\n"
               "Return True if the future was cancelled.")},
    {"add_done_callback", FAST(Future_add_done_callback),
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("add_done_callback($self, fn, /, *, context=<unrepresentable>)"
               "\n--\n\n"
               "Have fn(future) called soon after the future is done.\n\n"
               "context: the contextvars.Context to call it in, by default a "
               "copy of the current one.")},
    {"remove_done_callback", FAST(Future_remove_done_callback),
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("remove_done_callback($self, fn, /)\n--\n\n"
               "Remove all instances of a callback.\n\n"
               "Return how many were removed.")},
    {NULL},
};

PyGetSetDef Future_shared_getset[] = {
    {"_callbacks", (getter)Future_get_callbacks, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot Future_slots[] = {
    {Py_tp_doc, (void *)Future_doc},
    {Py_tp_methods, Future_methods},
    {Py_tp_getset, Future_shared_getset},
    {Py_tp_iter, Future_iter},
    {Py_am_await, Future_iter},
    {Py_tp_traverse, Future_traverse},
    {Py_tp_clear, Future_clear},
    {Py_tp_dealloc, Future_dealloc},
    {0, NULL},
};

static PyType_Spec Future_spec = {
    .name = "ouroloop.Future",
    .basicsize = sizeof(FutureObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Future_slots,
};

int
Future_setup_type(PyObject *module, module_state *state)
{
    PyObject *stock = (PyObject *)state->stock.FutureType;

    if (!state->stock.fast_types) {
        return PyModule_AddObjectRef(module, "Future", stock);
    }
    PyObject *bases = PyTuple_Pack(1, stock);
    if (bases == NULL) {
        return -1;
    }
    state->FutureType =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &Future_spec, bases);
    Py_DECREF(bases);
    return state->FutureType == NULL
        ? -1
        : PyModule_AddObjectRef(module, "Future",
                                (PyObject *)state->FutureType);
}

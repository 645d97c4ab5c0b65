/* The iterator behind `await future`: yields the future once, then ends with
   its result.  There is one for each await, so dead ones are kept. */
#include "ouroloop.h"

typedef struct {
    PyObject_HEAD
    FutureObject *future; /* NULL: ended */
} FutureIterObject;

/* End the iteration with what the future came to.  NULL: its exception. */
static PyObject *
result_of(FutureObject *future)
{
    if (future->state == FUTURE_FINISHED && future->result != NULL) {
        future->log_tb = 0;
        return Py_NewRef(future->result);
    }
    module_state *state = Future_state((PyObject *)future);
    return state == NULL ? NULL
                         : Future_call_stock(state, state->str_result,
                                             (PyObject *)future, NULL);
}

static PySendResult
FutureIter_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    FutureIterObject *self = (FutureIterObject *)op;
    FutureObject *future = self->future;

    if (future == NULL) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (future->state == FUTURE_PENDING) {
        if (!future->blocking) {
            future->blocking = 1;
            *result = Py_NewRef((PyObject *)future);
            return PYGEN_NEXT;
        }
        *result = NULL;
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return PYGEN_ERROR;
    }
    *result = result_of(future);
    if (COMPAT_ENDED_ITERATOR_LETS_GO) {
        Py_CLEAR(self->future); /* may run Python: the last reference */
    }
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* NULL without an exception: ended, with None.  That is what await calls, and
   it saves a StopIteration for each future without a result. */
static PyObject *
FutureIter_next(PyObject *op)
{
    PyObject *result, *stop;

    switch (FutureIter_am_send(op, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result == Py_None) {
            Py_DECREF(result);
            return NULL;
        }
        /* Made here: a tuple or an exception as the value would be taken for
           the arguments, or for the StopIteration. */
        stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *
FutureIter_send(PyObject *op, PyObject *Py_UNUSED(value))
{
    PyObject *result = FutureIter_next(op);

    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *
FutureIter_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    module_state *state = state_of(op);
    PyObject *throw = NULL, *result = NULL;

    /* asyncio's iterator has the checks and warnings of the version; it does
       not look at its future. */
    if (state != NULL) {
        throw = PyObject_GetAttr(state->stock.iterator, state->str_throw);
    }
    if (throw != NULL) {
        result = PyObject_Vectorcall(throw, args, nargs, NULL);
        Py_DECREF(throw);
        Py_CLEAR(((FutureIterObject *)op)->future);
    }
    return result;
}

static PyObject *
FutureIter_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(((FutureIterObject *)op)->future);
    Py_RETURN_NONE;
}

static int
FutureIter_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((FutureIterObject *)op)->future);
    return 0;
}

static int
FutureIter_clear(PyObject *op)
{
    Py_CLEAR(((FutureIterObject *)op)->future);
    return 0;
}

static void
FutureIter_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    module_state *state;

    PyObject_GC_UnTrack(op);
    Py_CLEAR(((FutureIterObject *)op)->future);
    state = state_of_exact(type);
    if (state != NULL && type == state->FutureIterType &&
        state->free_iterators.count < FREE_LIST_MAX) {
        state->free_iterators.objects[state->free_iterators.count++] = op;
    }
    else {
        PyObject_GC_Del(op);
    }
    Py_DECREF(type);
}

PyObject *
Future_iter(PyObject *op)
{
    FutureObject *future = (FutureObject *)op;
    FutureIterObject *self;
    module_state *state;

    if (future->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Future object is not initialized.");
        return NULL;
    }
    state = Future_state(op);
    if (state == NULL) {
        return NULL;
    }
    if (state->free_iterators.count > 0) {
        self =
            (FutureIterObject *)
                state->free_iterators.objects[--state->free_iterators.count];
        (void)PyObject_Init((PyObject *)self, state->FutureIterType);
    }
    else {
        self = PyObject_GC_New(FutureIterObject, state->FutureIterType);
        if (self == NULL) {
            return NULL;
        }
    }
    self->future = (FutureObject *)Py_NewRef(op);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyMethodDef FutureIter_methods[] = {
    {"send", FutureIter_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))FutureIter_throw, METH_FASTCALL,
     NULL},
    {"close", FutureIter_close, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot FutureIter_slots[] = {
    {Py_tp_iter, PyObject_SelfIter},       {Py_tp_iternext, FutureIter_next},
    {Py_am_send, FutureIter_am_send},      {Py_tp_methods, FutureIter_methods},
    {Py_tp_traverse, FutureIter_traverse}, {Py_tp_clear, FutureIter_clear},
    {Py_tp_dealloc, FutureIter_dealloc},   {0, NULL},
};

static PyType_Spec FutureIter_spec = {
    .name = "ouroloop._core.FutureIter",
    .basicsize = sizeof(FutureIterObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = FutureIter_slots,
};

int
FutureIter_setup_type(PyObject *module, module_state *state)
{
    if (!state->stock.fast_types) {
        return 0;
    }
    state->FutureIterType = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &FutureIter_spec, NULL);
    return state->FutureIterType == NULL ? -1 : 0;
}

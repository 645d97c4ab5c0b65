/* StreamCall: `await reader.readline()` and the like without a coroutine.

   It does what is done each time: wait for input, take it out of the buffer.
   Whatever else turns up (the end of the stream, a limit, an exception, a
   reader that is not plain, somebody who looks at the StreamCall itself) goes
   on in asyncio's own coroutine, brought to the same point, so that errors and
   tracebacks are asyncio's, too. */
#include "ouroloop.h"

enum stage {
    FRESH,     /* nothing done */
    WAITING,   /* for `waiter`, as StreamReader._wait_for_data() */
    IN_PYTHON, /* `coroutine` does it all */
    ENDED,
};

typedef struct {
    PyObject_HEAD
    module_state *state;
    PyObject *function; /* asyncio's */
    PyObject *stream;   /* the reader or writer */
    PyObject *argument; /* or NULL */
    FutureObject *waiter;
    PyObject *coroutine;
    Py_ssize_t size; /* read() and readexactly(): how many bytes; readuntil():
                        how many have no separator in them */
    enum stream_method kind;
    enum stage stage;
} StreamCallObject;

/* Asyncio's own coroutine. */

static PyObject *
new_coroutine(StreamCallObject *self)
{
    PyObject *args[] = {self->stream, self->argument};

    return self->state->streams.call_in_python(
        self->function, args, self->argument == NULL ? 1 : 2, NULL);
}

static PyObject *
give_waiter(PyObject *waiter, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(waiter);
}

/* Stands for the loop of a reader whose coroutine asks it for a future. */
static PyObject *
new_stand_in(PyObject *waiter)
{
    static PyMethodDef method = {"create_future", give_waiter, METH_NOARGS,
                                 NULL};
    PyObject *stand_in = NULL;
    PyObject *function = PyCFunction_New(&method, waiter);
    PyObject *types = PyImport_ImportModule("types");
    PyObject *type = types == NULL
        ? NULL
        : PyObject_GetAttrString(types, "SimpleNamespace");

    if (function != NULL && type != NULL) {
        stand_in = PyObject_CallNoArgs(type);
    }
    if (stand_in != NULL &&
        PyObject_SetAttrString(stand_in, "create_future", function) < 0) {
        Py_CLEAR(stand_in);
    }
    Py_XDECREF(types);
    Py_XDECREF(type);
    Py_XDECREF(function);
    return stand_in;
}

/* A buffer in which a search has found nothing, as far as it went. */
static PyObject *
searched_buffer(StreamCallObject *self)
{
    Py_ssize_t size = 0;
    char first = '\n';

    if (self->kind == STREAM_READUNTIL || self->kind == STREAM_READLINE) {
        size = self->size;
        if (self->argument != NULL) {
            first = PyBytes_AS_STRING(self->argument)[0];
            size += size == 0 ? 0 : PyBytes_GET_SIZE(self->argument) - 1;
        }
    }
    PyObject *buffer = PyByteArray_FromStringAndSize(NULL, size);
    if (buffer != NULL) {
        memset(PyByteArray_AS_STRING(buffer), first == 'a' ? 'b' : 'a',
               (size_t)size);
    }
    return buffer;
}

/* Put asyncio's own method in the way of what it may have been replaced by. */
static int
set_method(StreamCallObject *self, PyObject *dict, PyObject *name)
{
    PyObject *own = self->state->streams.reader.dicts;
    PyObject *function =
        PyDict_GetItemWithError(PyList_GET_ITEM(own, 0), name);
    PyObject *method =
        function == NULL ? NULL : PyMethod_New(function, self->stream);
    int result = method == NULL ? -1 : PyDict_SetItem(dict, name, method);

    Py_XDECREF(method);
    return result;
}

/* What a reader looks like to a coroutine that is to wait at once. */
static int
set_stage(StreamCallObject *self, PyObject *dict, PyObject *loop)
{
    module_state *state = self->state;
    PyObject *buffer = searched_buffer(self);
    PyObject *limit = PyLong_FromSsize_t(PY_SSIZE_T_MAX);
    int result = -1;

    PyDict_Clear(dict);
    if (buffer != NULL && limit != NULL &&
        PyDict_SetItem(dict, state->str__buffer, buffer) == 0 &&
        PyDict_SetItem(dict, state->str__limit, limit) == 0 &&
        PyDict_SetItem(dict, state->str__eof, Py_False) == 0 &&
        PyDict_SetItem(dict, state->str__paused, Py_False) == 0 &&
        PyDict_SetItem(dict, state->str__waiter, Py_None) == 0 &&
        PyDict_SetItem(dict, state->str__exception, Py_None) == 0 &&
        PyDict_SetItem(dict, state->str__loop, loop) == 0 &&
        set_method(self, dict, state->str_readuntil) == 0 &&
        set_method(self, dict, state->str__wait_for_data) == 0) {
        result = 0;
    }
    Py_XDECREF(buffer);
    Py_XDECREF(limit);
    return result;
}

/* New coroutine that waits for self->waiter, as if it had from the start: it
   is run up to there on a reader that looks as it did then.  NULL:
   exception. */
static PyObject *
waiting_coroutine(StreamCallObject *self)
{
    module_state *state = self->state;
    FutureObject *waiter = (FutureObject *)Py_NewRef(self->waiter);
    PyObject *coroutine = NULL, *yielded = NULL, *saved = NULL;
    PyObject *stand_in = new_stand_in((PyObject *)waiter);
    PyObject *dict = PyObject_GenericGetDict(self->stream, NULL);
    PySendResult sent = PYGEN_ERROR;

    if (stand_in != NULL && dict != NULL) {
        saved = PyDict_Copy(dict);
    }
    if (saved != NULL && set_stage(self, dict, stand_in) == 0) {
        enum future_state outcome = waiter->state;
        bool blocking = waiter->blocking, off = state->streams.off;
        /* It is not to see that it need not wait any more, and the inner
           calls are to be coroutines as well. */
        waiter->state = FUTURE_PENDING;
        waiter->blocking = 0;
        state->streams.off = true;
        coroutine = new_coroutine(self);
        if (coroutine != NULL) {
            sent = PyIter_Send(coroutine, Py_None, &yielded);
        }
        state->streams.off = off;
        waiter->state = outcome;
        waiter->blocking = blocking;
    }
    PyObject *raised = PyErr_GetRaisedException();
    if (saved != NULL) {
        PyDict_Clear(dict);
        if (PyDict_Update(dict, saved) < 0) {
            PyErr_WriteUnraisable(self->stream);
        }
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    if (coroutine != NULL &&
        (sent != PYGEN_NEXT || yielded != (PyObject *)waiter)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError,
                            "StreamReader was patched while it was read");
        }
        Py_CLEAR(coroutine);
    }
    Py_XDECREF(yielded);
    Py_XDECREF(saved);
    Py_XDECREF(stand_in);
    Py_XDECREF(dict);
    Py_DECREF(waiter);
    return coroutine;
}

/* Go on in asyncio's coroutine, from where this call is. */
static int
go_on_in_python(StreamCallObject *self)
{
    if (self->stage == IN_PYTHON) {
        return 0;
    }
    PyObject *coroutine =
        self->stage == WAITING ? waiting_coroutine(self) : new_coroutine(self);
    if (coroutine == NULL) {
        return -1;
    }
    if (self->stage == ENDED) {
        PyObject *result = PyObject_CallMethod(coroutine, "close", NULL);
        Py_XDECREF(result);
        if (result == NULL) {
            Py_DECREF(coroutine);
            return -1;
        }
    }
    Py_XSETREF(self->coroutine, coroutine);
    self->stage = IN_PYTHON;
    Py_CLEAR(self->waiter);
    return 0;
}

/* What is done here. */

enum outcome { READY, WAIT, IN_ANOTHER_WAY };

static char *
find(char *data, Py_ssize_t size, const char *separator, Py_ssize_t length)
{
    return size < length ? NULL
        : length == 1 ? memchr(data, separator[0], (size_t)size)
                      : memmem(data, (size_t)size, separator, (size_t)length);
}

/* How many bytes of the buffer are the result. */
static enum outcome
look_at_buffer(StreamCallObject *self, reader_view *view, Py_ssize_t *count)
{
    char *data = PyByteArray_AS_STRING(view->buffer), *separator = "\n";
    Py_ssize_t size = PyByteArray_GET_SIZE(view->buffer), length = 1;
    bool enough;

    switch (self->kind) {
    case STREAM_READ:
        *count = Py_MIN(size, self->size);
        /* It waits once: what it was woken for somebody else may have. */
        enough = size > 0 || self->stage == WAITING;
        break;
    case STREAM_READEXACTLY:
        *count = self->size;
        enough = size >= self->size;
        break;
    default:
        if (self->argument != NULL) {
            separator = PyBytes_AS_STRING(self->argument);
            length = PyBytes_GET_SIZE(self->argument);
        }
        if (self->size > size) {
            return IN_ANOTHER_WAY;  // Somebody took out of the buffer.
        }
        char *found =
            find(data + self->size, size - self->size, separator, length);
        enough = found != NULL;
        *count = enough ? found - data + length : size + 1;
        if (*count - length > view->limit_bytes) {
            return IN_ANOTHER_WAY;
        }
        if (!enough) {
            self->size = Py_MAX(0, *count - length);
        }
    }
    if (enough) {
        return ((PyByteArrayObject *)view->buffer)->ob_exports == 0
            ? READY
            : IN_ANOTHER_WAY;
    }
    return view->eof == Py_False ? WAIT : IN_ANOTHER_WAY;
}

/* New bytes, from the start of the buffer. */
static PyObject *
take(PyObject *buffer, Py_ssize_t count)
{
    PyObject *bytes =
        PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), count);

    if (bytes != NULL &&
        (PyByteArray_GET_SIZE(buffer) == count
             ? PyByteArray_Resize(buffer, 0)
             : PySequence_DelSlice(buffer, 0, count)) < 0) {
        Py_CLEAR(bytes);
    }
    return bytes;
}

/* Wait for a new future. */
static PySendResult
start_waiting(StreamCallObject *self, reader_view *view, PyObject **result)
{
    module_state *state = self->state;
    PyObject *future = Future_create((LoopObject *)view->loop);

    if (future == NULL || Py_TYPE(future) != state->FutureType ||
        PyDict_SetItem(view->dict, state->str__waiter, future) < 0) {
        Py_XDECREF(future);
        return PYGEN_ERROR;
    }
    ((FutureObject *)future)->blocking = 1;
    self->stage = WAITING;
    Py_XSETREF(self->waiter, (FutureObject *)Py_NewRef(future));
    *result = future;
    return PYGEN_NEXT;
}

/* Is the loop one of ours, on which nobody watches what is awaited? */
static bool
is_plain_loop(PyObject *loop)
{
    return Loop_check(loop) && Loop_is_direct((LoopObject *)loop) &&
        !((LoopObject *)loop)->custom_create_future;
}

/* Read, or see that it has to wait.  PYGEN_ERROR without an exception: not
   here. */
static PySendResult
read_some(StreamCallObject *self, PyObject **result)
{
    module_state *state = self->state;
    reader_view view;
    Py_ssize_t count;
    PySendResult sent = PYGEN_ERROR;

    if (!Streams_view(state, self->stream, &view)) {
        return PYGEN_ERROR;
    }
    if (!is_plain_loop(view.loop) ||
        (self->stage == FRESH && view.exception != Py_None)) {
        goto done;
    }
    switch (look_at_buffer(self, &view, &count)) {
    case READY:
        if (self->stage == WAITING &&
            PyDict_SetItem(view.dict, state->str__waiter, Py_None) < 0) {
            break;
        }
        *result = take(view.buffer, count);
        sent = *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
        break;
    case WAIT:
        if (self->stage == WAITING || view.waiter == Py_None) {
            sent = start_waiting(self, &view, result);
        }
        break;
    case IN_ANOTHER_WAY:
        break;
    }
done:
    Streams_close_view(&view);
    return sent;
}

/* Has the object this value, and no method of its own of that name? */
static bool
has(PyObject *object, PyObject *name, PyObject *value, PyObject *method)
{
    PyObject *dict = PyObject_GenericGetDict(object, NULL);
    bool found = dict != NULL &&
        PyDict_GetItemWithError(dict, name) == value &&
        PyDict_GetItemWithError(dict, method) == NULL;

    Py_XDECREF(dict);
    return found;
}

/* Is there nothing that StreamWriter.drain() would wait for? */
static bool
is_drained(StreamCallObject *self)
{
    module_state *state = self->state;
    stream_facts *facts = &state->streams;
    PyObject *reader = NULL, *transport_object = NULL, *protocol = NULL;
    bool drained = false;

    if (Streams_is_stock(&facts->protocol) &&
        Streams_is_stock(&facts->writer) && Streams_is_stock(&facts->reader) &&
        PyObject_GetOptionalAttr(self->stream, state->str__reader, &reader) >
            0 &&
        PyObject_GetOptionalAttr(self->stream, state->str__transport,
                                 &transport_object) > 0 &&
        PyObject_GetOptionalAttr(self->stream, state->str__protocol,
                                 &protocol) > 0 &&
        Py_TYPE(reader) == facts->reader.type &&
        Py_TYPE(protocol) == facts->protocol.type &&
        Py_TYPE(transport_object) == state->StreamTransportType) {
        TransportObject *transport = (TransportObject *)transport_object;
        drained = !transport->closing && transport->loop != NULL &&
            Loop_is_direct(transport->loop) &&
            (transport->dict == NULL ||
             PyDict_GET_SIZE(transport->dict) == 0) &&
            has(reader, state->str__exception, Py_None,
                state->str_exception) &&
            has(protocol, state->str__connection_lost, Py_False,
                state->str__drain_helper) &&
            has(protocol, state->str__paused, Py_False,
                state->str__drain_helper);
    }
    PyErr_Clear();
    Py_XDECREF(reader);
    Py_XDECREF(transport_object);
    Py_XDECREF(protocol);
    return drained;
}

static PySendResult
attempt(StreamCallObject *self, PyObject **result)
{
    if (self->kind != STREAM_DRAIN) {
        return read_some(self, result);
    }
    if (!is_drained(self)) {
        return PYGEN_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

/* Has what it waits for brought it no more than the permission to go on? */
static bool
was_woken(FutureObject *waiter)
{
    return waiter->loop != NULL && waiter->state == FUTURE_FINISHED &&
        waiter->exception == NULL;
}

static PySendResult
StreamCall_am_send(PyObject *op, PyObject *value, PyObject **result)
{
    StreamCallObject *self = (StreamCallObject *)op;
    PySendResult sent = PYGEN_ERROR;

    *result = NULL;
    if (self->stage == ENDED) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    Py_INCREF(op);
    if (self->stage == FRESH ||
        (self->stage == WAITING && was_woken(self->waiter))) {
        sent = attempt(self, result);
    }
    if (sent == PYGEN_ERROR && !PyErr_Occurred() &&
        go_on_in_python(self) == 0) {
        PyObject *coroutine = Py_NewRef(self->coroutine);
        sent = PyIter_Send(coroutine, value, result);
        Py_DECREF(coroutine);
    }
    if (sent != PYGEN_NEXT) {
        self->stage = ENDED;
        Py_CLEAR(self->waiter);
        Py_CLEAR(self->coroutine);
    }
    Py_DECREF(op);
    return sent;
}

/* The type. */

/* Set StopIteration with a value, which await takes out of it at once; small
   values in an exception that is used again and again. */
static void
set_stop(module_state *state, PyObject *value)
{
    enum { SMALL_VALUE = 4096 };
    PyObject *stop = state->streams.stop;

    if (stop != NULL && Py_REFCNT(stop) == 1 && PyBytes_CheckExact(value) &&
        PyBytes_GET_SIZE(value) <= SMALL_VALUE) {
        PyStopIterationObject *fields = (PyStopIterationObject *)stop;
        if (fields->traceback == NULL && fields->context == NULL) {
            Py_XSETREF(fields->value, Py_NewRef(value));
            PyErr_SetRaisedException(Py_NewRef(stop));
            return;
        }
    }
    /* Made here: a tuple as the value would be taken for the arguments. */
    stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (stop == NULL) {
        return;
    }
    if (PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) <= SMALL_VALUE) {
        Py_XSETREF(state->streams.stop, Py_NewRef(stop));
    }
    PyErr_SetRaisedException(stop);
}

/* NULL without an exception: ended, with None. */
static PyObject *
StreamCall_next(PyObject *op)
{
    module_state *state = ((StreamCallObject *)op)->state;
    PyObject *result;

    switch (StreamCall_am_send(op, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result != Py_None) {
            set_stop(state, result);
        }
        Py_DECREF(result);
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *
StreamCall_send(PyObject *op, PyObject *value)
{
    PyObject *result, *stop;

    switch (StreamCall_am_send(op, value, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            PyErr_SetRaisedException(stop);
        }
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *
StreamCall_throw(PyObject *op, PyObject *args)
{
    StreamCallObject *self = (StreamCallObject *)op;
    PyObject *throw = NULL, *result = NULL;

    if (go_on_in_python(self) < 0) {
        return NULL;
    }
    PyObject *coroutine = Py_NewRef(self->coroutine);
    throw = PyObject_GetAttr(coroutine, self->state->str_throw);
    if (throw != NULL) {
        result = PyObject_CallObject(throw, args);
        Py_DECREF(throw);
    }
    if (result == NULL) {
        self->stage = ENDED;
        Py_CLEAR(self->coroutine);
    }
    Py_DECREF(coroutine);
    return result;
}

/* Nobody goes on with it: what a coroutine's "finally" clauses do. */
static int
end(StreamCallObject *self)
{
    enum stage stage = self->stage;

    self->stage = ENDED;
    return stage == WAITING && self->state->str__waiter != NULL
        ? PyObject_SetAttr(self->stream, self->state->str__waiter, Py_None)
        : 0;
}

static PyObject *
StreamCall_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    StreamCallObject *self = (StreamCallObject *)op;

    if (self->stage == IN_PYTHON) {
        return PyObject_CallMethod(self->coroutine, "close", NULL);
    }
    if (end(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
StreamCall_await(PyObject *op)
{
    return Py_NewRef(op);
}

static PyObject *
StreamCall_getattro(PyObject *op, PyObject *name)
{
    StreamCallObject *self = (StreamCallObject *)op;
    PyObject *value = PyObject_GenericGetAttr(op, name);

    if (value != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return value;
    }
    /* cr_frame, cr_await and whatever else a coroutine has. */
    PyErr_Clear();
    return go_on_in_python(self) < 0 ? NULL
                                     : PyObject_GetAttr(self->coroutine, name);
}

static PyObject *
StreamCall_repr(StreamCallObject *self)
{
    PyObject *name = PyObject_GetAttrString(self->function, "__qualname__");
    PyObject *repr = name == NULL
        ? NULL
        : PyUnicode_FromFormat("<coroutine object %S at %p>", name, self);

    Py_XDECREF(name);
    return repr;
}

static PyObject *
StreamCall_get_class(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)&PyCoro_Type);
}

static int
StreamCall_traverse(StreamCallObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->stream);
    Py_VISIT(self->argument);
    Py_VISIT(self->waiter);
    Py_VISIT(self->coroutine);
    return 0;
}

static void
StreamCall_dealloc(StreamCallObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->stage == FRESH || self->stage == WAITING) {
        PyObject *raised = PyErr_GetRaisedException();
        if (self->stage == FRESH) {
            /* Its end is a warning. */
            Py_XDECREF(new_coroutine(self));
        }
        if (end(self) < 0 || PyErr_Occurred()) {
            PyErr_WriteUnraisable(NULL);
        }
        if (raised != NULL) {
            PyErr_SetRaisedException(raised);
        }
    }
    Py_XDECREF(self->function);
    Py_XDECREF(self->stream);
    Py_XDECREF(self->argument);
    Py_XDECREF(self->waiter);
    Py_XDECREF(self->coroutine);
    module_state *state = state_of_exact(type);
    if (state != NULL && type == state->StreamCallType &&
        state->streams.free_calls.count < FREE_LIST_MAX) {
        free_list *list = &state->streams.free_calls;
        list->objects[list->count++] = (PyObject *)self;
    }
    else {
        PyObject_GC_Del(self);
    }
    Py_DECREF(type);
}

static PyMethodDef StreamCall_methods[] = {
    {"send", StreamCall_send, METH_O, NULL},
    {"throw", StreamCall_throw, METH_VARARGS, NULL},
    {"close", StreamCall_close, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef StreamCall_getset[] = {
    {"__class__", StreamCall_get_class, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot StreamCall_slots[] = {
    {Py_am_await, StreamCall_await},
    {Py_am_send, StreamCall_am_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, StreamCall_next},
    {Py_tp_getattro, StreamCall_getattro},
    {Py_tp_repr, StreamCall_repr},
    {Py_tp_methods, StreamCall_methods},
    {Py_tp_getset, StreamCall_getset},
    {Py_tp_traverse, StreamCall_traverse},
    {Py_tp_dealloc, StreamCall_dealloc},
    {0, NULL},
};

static PyType_Spec StreamCall_spec = {
    .name = "ouroloop._core.StreamCall",
    .basicsize = sizeof(StreamCallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = StreamCall_slots,
};

PyObject *
StreamCall_new(module_state *state, enum stream_method kind,
               PyObject *function, PyObject *stream, PyObject *argument,
               Py_ssize_t size)
{
    free_list *list = &state->streams.free_calls;
    StreamCallObject *self;

    if (list->count > 0) {
        self = (StreamCallObject *)list->objects[--list->count];
        (void)PyObject_Init((PyObject *)self, state->StreamCallType);
    }
    else {
        self = PyObject_GC_New(StreamCallObject, state->StreamCallType);
        if (self == NULL) {
            return NULL;
        }
    }
    self->state = state;
    self->function = Py_NewRef(function);
    self->stream = Py_NewRef(stream);
    self->argument = Py_XNewRef(argument);
    self->waiter = NULL;
    self->coroutine = NULL;
    self->size = size;
    self->kind = kind;
    self->stage = FRESH;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

int
StreamCall_setup_type(PyObject *module, module_state *state)
{
    if (!state->stock.fast_types) {
        return 0;
    }
    state->StreamCallType = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &StreamCall_spec, NULL);
    return state->StreamCallType == NULL ? -1 : 0;
}

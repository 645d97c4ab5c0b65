/* The base type of all transports: the methods that do not depend on what is
   transported, and those attributes of asyncio's transports that others are
   known to read. */
#include "ouroloop.h"

/* Methods. */

static PyObject *
none_unless(int failed)
{
    if (failed < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Transport_close_method(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Transport_close(self));
}

static PyObject *
Transport_abort_method(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Transport_abort(self, Py_None));
}

static PyObject *
Transport__force_close(TransportObject *self, PyObject *exc)
{
    return none_unless(Transport_abort(self, exc));
}

static PyObject *
Transport__fatal_error(TransportObject *self, PyObject *const *args,
                       Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "_fatal_error", 2, 2, 1, {ARG(exc), ARG(message)}};
    PyObject *given[2], *message;

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    message = given[1] != NULL
        ? Py_NewRef(given[1])
        : PyUnicode_FromString("Fatal error on transport");
    int failed = message == NULL || self->ops->flush(self) < 0
        ? -1
        : Transport_end_with(self, given[0], message);
    Py_XDECREF(message);
    return none_unless(failed);
}

static PyObject *
Transport__read_ready(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(
        self->loop != NULL && self->open ? self->ops->read_ready(self) : 0);
}

static PyObject *
Transport__write_ready(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(
        self->loop != NULL && self->open ? self->ops->write_ready(self) : 0);
}

static PyObject *
Transport_is_closing(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closing);
}

static PyObject *
Transport_is_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->closing && !self->paused);
}

static PyObject *
Transport_pause_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closing || self->paused) {
        Py_RETURN_NONE;
    }
    self->paused = true;
    self->reading = false;
    self->found &= ~UV_READABLE;
    return none_unless(
        self->loop->debug
            ? Transport_log(self, "%r pauses reading", NULL, NULL)
            : 0);
}

static PyObject *
Transport_resume_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closing || !self->paused) {
        Py_RETURN_NONE;
    }
    if (!self->one_context) {
        PyObject *context = PyContext_CopyCurrent();
        if (context == NULL) {
            return NULL;
        }
        Py_XSETREF(self->read_context, context);
    }
    self->paused = false;
    self->reading = true;
    if (Transport_watch(self) < 0 ||
        (self->ops->resumed != NULL && self->ops->resumed(self) < 0)) {
        return NULL;
    }
    return none_unless(
        self->loop->debug
            ? Transport_log(self, "%r resumes reading", NULL, NULL)
            : 0);
}

static PyObject *
Transport_set_protocol_method(TransportObject *self, PyObject *protocol)
{
    /* What was written belongs to the old one's flow control. */
    if (self->ops->flush(self) < 0) {
        return NULL;
    }
    return none_unless(Transport_set_protocol(self, protocol));
}

static PyObject *
Transport_get_protocol(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->protocol == NULL ? Py_None : self->protocol);
}

static PyObject *
Transport_get_extra_info(TransportObject *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "get_extra_info", 2, 2, 1, {ARG(name), ARG(default)}};
    PyObject *given[2];

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    PyObject *value = Transport_extra_info(self, given[0]);
    if (value == NULL && !PyErr_Occurred()) {
        value = Py_NewRef(given[1] == NULL ? Py_None : given[1]);
    }
    return value;
}

static PyObject *
Transport_set_write_buffer_limits(TransportObject *self, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "set_write_buffer_limits", 2, 2, 0, {ARG(high), ARG(low)}};
    PyObject *given[2];

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0 ||
        self->ops->flush(self) < 0 ||
        Transport_set_limits(self, given[0] == NULL ? Py_None : given[0],
                             given[1] == NULL ? Py_None : given[1]) < 0) {
        return NULL;
    }
    return none_unless(Transport_maybe_pause(self));
}

static PyObject *
Transport_get_write_buffer_limits(TransportObject *self,
                                  PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->low_water,
                         (Py_ssize_t)self->high_water);
}

static PyObject *
Transport_get_write_buffer_size(TransportObject *self,
                                PyObject *Py_UNUSED(ignored))
{
    if (self->ops->flush(self) < 0) {
        return NULL;
    }
    return PyLong_FromSize_t(self->unsent);
}

static PyObject *
Transport_repr(TransportObject *self)
{
    const char *dot = strrchr(Py_TYPE(self)->tp_name, '.');
    const char *name = dot == NULL ? Py_TYPE(self)->tp_name : dot + 1;
    const char *state = !self->open ? " closed"
        : self->closing             ? " closing"
                                    : "";

    if (self->loop == NULL || self->loop->closed) {
        return PyUnicode_FromFormat("<%s%s fd=%d>", name, state, self->fd);
    }
    return PyUnicode_FromFormat(
        "<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state, self->fd,
        self->reading ? "polling" : "idle", self->writing ? "polling" : "idle",
        self->unsent);
}

static PyObject *
Transport_get__sock(TransportObject *self, void *Py_UNUSED(closure))
{
    if (!self->open) {
        Py_RETURN_NONE;
    }
    return Transport_get_socket(self);
}

static PyObject *
Transport_get__extra(TransportObject *self, void *Py_UNUSED(closure))
{
    return Transport_all_extra_info(self);
}

static PyObject *
Transport_get__protocol(TransportObject *self, void *Py_UNUSED(closure))
{
    return Transport_get_protocol(self, NULL);
}

static int
Transport_set__protocol(TransportObject *self, PyObject *protocol,
                        void *Py_UNUSED(closure))
{
    return Transport_set_protocol(self, protocol == NULL ? Py_None : protocol);
}

static PyObject *
Transport_get__loop(TransportObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop == NULL ? Py_None : (PyObject *)self->loop);
}

/* Life. */

int
Transport_traverse(TransportObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    if (self->open && Transport_is_idle(self)) {
        Py_VISIT(self); /* the reference of the loop's table */
    }
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->read_context);
    Py_VISIT(self->write_context);
    Py_VISIT(self->held_context);
    Py_VISIT(self->sock);
    Py_VISIT(self->server);
    Py_VISIT(self->waiter);
    Py_VISIT(self->empty_waiter);
    return 0;
}

int
Transport_clear(TransportObject *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->loop);
    self->direct = NULL;
    Py_CLEAR(self->read_context);
    Py_CLEAR(self->write_context);
    Py_CLEAR(self->held_context);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->server);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->empty_waiter);
    return 0;
}

/* The garbage collector has found it idle and forgotten. */
static void
Transport_finalize(TransportObject *self)
{
    PyObject *exc = PyErr_GetRaisedException();

    if (self->open && self->loop != NULL) {
        self->ops->abandon(self);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

void
Transport_dealloc(TransportObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (self->ops != NULL) {
        self->ops->discard(self);
    }
    (void)Transport_clear(self);
    Py_CLEAR(self->context);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Transport_doc,
"What the transports of the loop share; see asyncio.BaseTransport.");
PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Close the transport once what was written is sent.\n\n"
"Nothing more is received; connection_lost(None) is called at the end.");
PyDoc_STRVAR(abort_doc,
"abort($self, /)\n--\n\n"
"Close the transport at once; what the kernel has not taken yet is lost.\n\n"
"connection_lost(None) is called in the loop's next turn.");
PyDoc_STRVAR(is_closing_doc,
"is_closing($self, /)\n--\n\n"
"Return True if the transport is closing or closed.");
PyDoc_STRVAR(is_reading_doc,
"is_reading($self, /)\n--\n\n"
"Return True if the transport hands input on to the protocol.");
PyDoc_STRVAR(pause_reading_doc,
"pause_reading($self, /)\n--\n\n"
"Hand no input on to the protocol until resume_reading().");
PyDoc_STRVAR(resume_reading_doc,
"resume_reading($self, /)\n--\n\n"
"Undo pause_reading().");
PyDoc_STRVAR(set_protocol_doc,
"set_protocol($self, protocol, /)\n--\n\n"
"Use another protocol from now on.");
PyDoc_STRVAR(get_protocol_doc,
"get_protocol($self, /)\n--\n\n"
"Return the protocol; None once connection_lost() was called.");
PyDoc_STRVAR(get_extra_info_doc,
"get_extra_info($self, /, name, default=None)\n--\n\n"
"Return what is known under the name, else default.\n\n"
"socket: a TransportSocket.  sockname, peername: addresses, None where there\n"
"is none.");
PyDoc_STRVAR(set_write_buffer_limits_doc,
"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
"Set when the protocol's pause_writing() and resume_writing() are called.\n\n"
"high: with more bytes than this unsent, it is paused (None: 64 KiB, or four\n"
"times low).  low: with this many or fewer, resumed (None: a quarter of\n"
"high).  Raise ValueError unless high >= low >= 0.");
PyDoc_STRVAR(get_write_buffer_limits_doc,
"get_write_buffer_limits($self, /)\n--\n\n"
"Return (low, high) in bytes.");
PyDoc_STRVAR(get_write_buffer_size_doc,
"get_write_buffer_size($self, /)\n--\n\n"
"Return the number of bytes that the kernel has not taken yet.");

#define FAST(function) ((PyCFunction)(void (*)(void))(function))
PyMethodDef Transport_methods[] = {
    {"abort", (PyCFunction)Transport_abort_method, METH_NOARGS, abort_doc},
    {"get_extra_info", FAST(Transport_get_extra_info),
     METH_FASTCALL | METH_KEYWORDS, get_extra_info_doc},
    {"set_write_buffer_limits", FAST(Transport_set_write_buffer_limits),
     METH_FASTCALL | METH_KEYWORDS, set_write_buffer_limits_doc},
    {"get_write_buffer_limits", (PyCFunction)Transport_get_write_buffer_limits,
     METH_NOARGS, get_write_buffer_limits_doc},
    {"get_write_buffer_size", (PyCFunction)Transport_get_write_buffer_size,
     METH_NOARGS, get_write_buffer_size_doc},
    {"_force_close", (PyCFunction)Transport__force_close, METH_O, NULL},
    {"_write_ready", (PyCFunction)Transport__write_ready, METH_NOARGS, NULL},
    /* From here on they are TRANSPORT_READ_METHODS. */
    {"close", (PyCFunction)Transport_close_method, METH_NOARGS, close_doc},
    {"is_closing", (PyCFunction)Transport_is_closing, METH_NOARGS,
     is_closing_doc},
    {"is_reading", (PyCFunction)Transport_is_reading, METH_NOARGS,
     is_reading_doc},
    {"pause_reading", (PyCFunction)Transport_pause_reading, METH_NOARGS,
     pause_reading_doc},
    {"resume_reading", (PyCFunction)Transport_resume_reading, METH_NOARGS,
     resume_reading_doc},
    {"set_protocol", (PyCFunction)Transport_set_protocol_method, METH_O,
     set_protocol_doc},
    {"get_protocol", (PyCFunction)Transport_get_protocol, METH_NOARGS,
     get_protocol_doc},
    {"_fatal_error", FAST(Transport__fatal_error),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_call_connection_lost", (PyCFunction)Transport_call_connection_lost,
     METH_O, NULL},
    {"_read_ready", (PyCFunction)Transport__read_ready, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef Transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(TransportObject, dict), READONLY},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TransportObject, weakrefs),
     READONLY},
    {"_context", T_OBJECT, offsetof(TransportObject, context), READONLY},
    {"_server", T_OBJECT, offsetof(TransportObject, server), READONLY},
    {"_empty_waiter", T_OBJECT, offsetof(TransportObject, empty_waiter),
     READONLY},
    {"_sock_fd", T_INT, offsetof(TransportObject, fd), READONLY},
    {"_conn_lost", T_INT, offsetof(TransportObject, conn_lost), READONLY},
    {"_closing", T_BOOL, offsetof(TransportObject, closing), READONLY},
    {"_paused", T_BOOL, offsetof(TransportObject, paused), READONLY},
    {"_eof", T_BOOL, offsetof(TransportObject, eof), READONLY},
    {"_protocol_paused", T_BOOL, offsetof(TransportObject, protocol_paused),
     READONLY},
    {"_high_water", T_PYSSIZET, offsetof(TransportObject, high_water),
     READONLY},
    {"_low_water", T_PYSSIZET, offsetof(TransportObject, low_water), READONLY},
    {"_lent", T_BOOL, offsetof(TransportObject, lent), 0},
    {NULL},
};

static PyGetSetDef Transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", (getter)Transport_get__loop, NULL, NULL, NULL},
    {"_protocol", (getter)Transport_get__protocol,
     (setter)Transport_set__protocol, NULL, NULL},
    {"_sock", (getter)Transport_get__sock, NULL, NULL, NULL},
    {"_extra", (getter)Transport_get__extra, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot Transport_slots[] = {
    {Py_tp_doc, (void *)Transport_doc},   {Py_tp_dealloc, Transport_dealloc},
    {Py_tp_traverse, Transport_traverse}, {Py_tp_clear, Transport_clear},
    {Py_tp_finalize, Transport_finalize}, {Py_tp_repr, Transport_repr},
    {Py_tp_methods, Transport_methods},   {Py_tp_members, Transport_members},
    {Py_tp_getset, Transport_getset},     {0, NULL},
};

static PyType_Spec Transport_spec = {
    .name = "ouroloop._core.Transport",
    .basicsize = sizeof(TransportObject),
    /* Not immutable, as its base is not. */
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Transport_slots,
};

/* Since 3.13 (some 3.12 too) a Server keeps its clients. */
static int
find_server_keeps_clients(module_state *state)
{
    PyObject *attach = PyObject_GetAttrString(state->Server, "_attach");
    PyObject *code =
        attach == NULL ? NULL : PyObject_GetAttrString(attach, "__code__");
    PyObject *count =
        code == NULL ? NULL : PyObject_GetAttrString(code, "co_argcount");
    long arguments = count == NULL ? -1 : PyLong_AsLong(count);

    state->server_keeps_clients = arguments > 1;
    Py_XDECREF(attach);
    Py_XDECREF(code);
    Py_XDECREF(count);
    return PyErr_Occurred() ? -1 : 0;
}

/* Where a type keeps the attribute of __slots__; 0 if it is none. */
static size_t
slot_offset(PyTypeObject *type, const char *name)
{
    PyObject *slot = PyObject_GetAttrString((PyObject *)type, name);
    size_t offset = 0;

    if (slot == NULL) {
        PyErr_Clear();
    }
    else if (Py_IS_TYPE(slot, &PyMemberDescr_Type)) {
        offset = (size_t)((PyMemberDescrObject *)slot)->d_member->offset;
    }
    Py_XDECREF(slot);
    return offset;
}

int
Transport_setup_type(PyObject *module, module_state *state)
{
    PyTypeObject *base = (PyTypeObject *)state->_FlowControlMixin;

    /* Our struct begins with its fields. */
    if (base->tp_basicsize != offsetof(TransportObject, dict) ||
        slot_offset(base, "_extra") != offsetof(TransportObject, extra) ||
        slot_offset(base, "_loop") != offsetof(TransportObject, loop)) {
        PyErr_SetString(PyExc_SystemError,
                        "ouroloop does not know this asyncio.Transport");
        return -1;
    }
    if (find_server_keeps_clients(state) < 0) {
        return -1;
    }
    PyObject *bases = PyTuple_Pack(1, base);
    if (bases == NULL) {
        return -1;
    }
    state->TransportType = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &Transport_spec, bases);
    Py_DECREF(bases);
    return state->TransportType == NULL ? -1 : 0;
}

/* The types behind asyncio's SSL protocol and its transport.

   pkg/ouroloop/tls.py joins each with asyncio's own class, which has all that
   happens once per connection: handshake, shutdown, timeouts, errors.  What it
   keeps in attributes that are needed here stands in our struct, under the
   same names. */
#include "ouroloop.h"

enum { BUFFER_SIZE = 64 * 1024 }; /* as large as a transport's read may be */

/* The protocol: attributes. */

static PyObject *
get_object(PyObject *self, void *offset)
{
    return Py_NewRef(*(PyObject **)((char *)self + (size_t)offset));
}

static int
refuse_deletion(PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "cannot delete this attribute");
    }
    return value == NULL ? -1 : 0;
}

static int
set_object(PyObject *self, PyObject *value, void *offset)
{
    PyObject **slot = (PyObject **)((char *)self + (size_t)offset);

    if (refuse_deletion(value) < 0) {
        return -1;
    }
    Py_XSETREF(*slot, Py_NewRef(value));
    return 0;
}

static PyObject *
get_size(PyObject *self, void *offset)
{
    return PyLong_FromSsize_t(*(Py_ssize_t *)((char *)self + (size_t)offset));
}

static int
set_size(PyObject *self, PyObject *value, void *offset)
{
    Py_ssize_t size;

    if (refuse_deletion(value) < 0 || Transport_as_size(value, &size) < 0) {
        return -1;
    }
    *(Py_ssize_t *)((char *)self + (size_t)offset) = size;
    return 0;
}

static PyObject *
TlsProtocol_get__loop(TlsObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop == NULL ? Py_None : (PyObject *)self->loop);
}

static int
TlsProtocol_set__loop(TlsObject *self, PyObject *loop,
                      void *Py_UNUSED(closure))
{
    if (loop == NULL || !Loop_check(loop)) {
        PyErr_SetString(PyExc_TypeError, "an ouroloop.Loop is needed");
        return -1;
    }
    Py_XSETREF(self->loop, (LoopObject *)Py_NewRef(loop));
    return 0;
}

static int
TlsProtocol_set__state(TlsObject *self, PyObject *value, void *offset)
{
    static const char *const names[] = {
        [TLS_UNWRAPPED] = "UNWRAPPED", [TLS_DO_HANDSHAKE] = "DO_HANDSHAKE",
        [TLS_WRAPPED] = "WRAPPED",     [TLS_FLUSHING] = "FLUSHING",
        [TLS_SHUTDOWN] = "SHUTDOWN",
    };
    PyObject *name;

    if (refuse_deletion(value) < 0) {
        return -1;
    }
    name = PyObject_GetAttr(value, self->state->str__name_);
    if (name == NULL) {
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        if (PyUnicode_Check(name) &&
            PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
            self->phase = (enum tls_phase)i;
            Py_DECREF(name);
            return set_object((PyObject *)self, value, offset);
        }
    }
    PyErr_Format(PyExc_ValueError, "unknown state %R", name);
    Py_DECREF(name);
    return -1;
}

/* C code walks through it. */
static int
TlsProtocol_set__write_backlog(TlsObject *self, PyObject *value,
                               void *Py_UNUSED(closure))
{
    PyObject *list =
        refuse_deletion(value) < 0 ? NULL : PySequence_List(value);

    if (list == NULL) {
        return -1;
    }
    Py_SETREF(self->write_backlog, list);
    return 0;
}

/* Does the object's method of this name come from that class itself?  Then
   what it does is known.  -1 with an exception. */
static int
is_method_of(PyObject *object, PyObject *type, PyObject *name)
{
    PyObject *method = NULL, *function = NULL;

    if (PyObject_GetOptionalAttr(object, name, &method) <= 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    function = PyObject_GetAttr(type, name);
    int result = function == NULL
        ? -1
        : PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function;
    Py_DECREF(method);
    Py_XDECREF(function);
    return result;
}

/* New: the object of the _ssl module inside of an ssl.SSLObject; None if
   somebody wants to hear of reads and writes. */
static PyObject *
find_native(module_state *state, PyObject *sslobj)
{
    PyObject *ssl = PyObject_GetAttrString(state->sslproto, "ssl");
    PyObject *type = NULL, *native = NULL,
             *names[] = {state->str_read, state->str_write,
                         state->str_pending};
    int plain = -1;

    if (ssl == NULL || ssl == Py_None) {
        return ssl;
    }
    type = PyObject_GetAttrString(ssl, "SSLObject");
    for (size_t i = 0; type != NULL && i < Py_ARRAY_LENGTH(names); i++) {
        plain = is_method_of(sslobj, type, names[i]);
        if (plain <= 0) {
            break;
        }
    }
    if (plain > 0) {
        native = PyObject_GetAttrString(sslobj, "_sslobj");
    }
    else if (plain == 0) {
        native = Py_NewRef(Py_None);
    }
    Py_XDECREF(type);
    Py_DECREF(ssl);
    return native;
}

static int
TlsProtocol_set__sslobj(TlsObject *self, PyObject *sslobj, void *offset)
{
    PyObject *native =
        refuse_deletion(sslobj) < 0 ? NULL : find_native(self->state, sslobj);

    if (native == NULL) {
        return -1;
    }
    if (native == Py_None) {
        Py_CLEAR(native);
    }
    Py_XSETREF(self->native, native);
    return set_object((PyObject *)self, sslobj, offset);
}

/* Input of a stream transport of ours comes without Python. */
static int
TlsProtocol_set__transport(TlsObject *self, PyObject *transport, void *offset)
{
    PyObject *old = self->transport;

    if (refuse_deletion(transport) < 0) {
        return -1;
    }
    if (Py_IS_TYPE(old, self->state->StreamTransportType) &&
        ((TransportObject *)old)->protocol == (PyObject *)self) {
        ((TransportObject *)old)->direct = NULL;
    }
    if (Py_IS_TYPE(transport, self->state->StreamTransportType) &&
        ((TransportObject *)transport)->protocol == (PyObject *)self) {
        ((TransportObject *)transport)->direct = &tls_direct;
    }
    return set_object((PyObject *)self, transport, offset);
}

#define OBJECT(name, set)                                                   \
    {"_" #name, get_object, (setter)set, NULL,                              \
     (void *)offsetof(TlsObject, name)}
#define SIZE(name)                                                          \
    {"_" #name, get_size, set_size, NULL, (void *)offsetof(TlsObject, name)}
static PyGetSetDef TlsProtocol_getset[] = {
    {"_loop", (getter)TlsProtocol_get__loop, (setter)TlsProtocol_set__loop,
     NULL, NULL},
    {"_state", get_object, (setter)TlsProtocol_set__state, NULL,
     (void *)offsetof(TlsObject, phase_object)},
    OBJECT(app_protocol, set_object),
    OBJECT(app_protocol_get_buffer, set_object),
    OBJECT(app_protocol_buffer_updated, set_object),
    OBJECT(transport, TlsProtocol_set__transport),
    OBJECT(sslobj, TlsProtocol_set__sslobj),
    OBJECT(incoming, set_object),
    OBJECT(outgoing, set_object),
    OBJECT(write_backlog, TlsProtocol_set__write_backlog),
    SIZE(write_buffer_size),
    SIZE(outgoing_high_water),
    SIZE(outgoing_low_water),
    SIZE(incoming_high_water),
    SIZE(incoming_low_water),
    {NULL},
};

#define FLAG(name) {"_" #name, T_BOOL, offsetof(TlsObject, name), 0}
static PyMemberDef TlsProtocol_members[] = {
    {"_conn_lost", T_INT, offsetof(TlsObject, conn_lost), 0},
    FLAG(app_protocol_is_buffer),
    FLAG(app_reading_paused),
    FLAG(app_writing_paused),
    FLAG(ssl_reading_paused),
    FLAG(ssl_writing_paused),
    {NULL},
};

/* The protocol: methods. */

static PyObject *
none_unless(int failed)
{
    if (failed < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Only transports that are not ours ask for it. */
static PyObject *
TlsProtocol_get_buffer(TlsObject *self, PyObject *Py_UNUSED(size_hint))
{
    if (self->buffer == Py_None) {
        PyObject *buffer = PyByteArray_FromStringAndSize(NULL, BUFFER_SIZE);
        if (buffer == NULL) {
            return NULL;
        }
        Py_SETREF(self->buffer, buffer);
    }
    return PyMemoryView_FromObject(self->buffer);
}

static PyObject *
TlsProtocol_buffer_updated(TlsObject *self, PyObject *nbytes)
{
    Py_ssize_t count = PyNumber_AsSsize_t(nbytes, NULL);

    if (count == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (count <= 0 || self->buffer == Py_None) {
        Py_RETURN_NONE;
    }
    PyObject *buffer = Py_NewRef(self->buffer);
    int result =
        tls_direct.feed((PyObject *)self, PyByteArray_AS_STRING(buffer),
                        (size_t)Py_MIN(count, PyByteArray_GET_SIZE(buffer)));
    Py_DECREF(buffer);
    return none_unless(result);
}

static PyObject *
TlsProtocol__write_appdata(TlsObject *self, PyObject *list)
{
    return none_unless(Tls_write(self, list, true));
}

static PyObject *
TlsProtocol__do_write(TlsObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Tls_do_write(self));
}

static PyObject *
TlsProtocol__process_outgoing(TlsObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Tls_process_outgoing(self));
}

static PyObject *
TlsProtocol__control_app_writing(TlsObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Tls_control_app_writing(self));
}

static PyObject *
TlsProtocol__do_read(TlsObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Tls_do_read(self));
}

static PyObject *
TlsProtocol__control_ssl_reading(TlsObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Tls_control_ssl_reading(self));
}

static PyObject *
TlsProtocol__settle(TlsObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Tls_settle((PyObject *)self));
}

static PyMethodDef TlsProtocol_methods[] = {
    {"get_buffer", (PyCFunction)TlsProtocol_get_buffer, METH_O, NULL},
    {"buffer_updated", (PyCFunction)TlsProtocol_buffer_updated, METH_O, NULL},
    {"_write_appdata", (PyCFunction)TlsProtocol__write_appdata, METH_O, NULL},
    {"_do_write", (PyCFunction)TlsProtocol__do_write, METH_NOARGS, NULL},
    {"_process_outgoing", (PyCFunction)TlsProtocol__process_outgoing,
     METH_NOARGS, NULL},
    {"_control_app_writing", (PyCFunction)TlsProtocol__control_app_writing,
     METH_NOARGS, NULL},
    {"_do_read", (PyCFunction)TlsProtocol__do_read, METH_NOARGS, NULL},
    {"_control_ssl_reading", (PyCFunction)TlsProtocol__control_ssl_reading,
     METH_NOARGS, NULL},
    {"_settle", (PyCFunction)TlsProtocol__settle, METH_NOARGS, NULL},
    {NULL},
};

/* The protocol: life. */

#define EACH_OBJECT(X)                                                      \
    X(phase_object) X(app_protocol) X(app_protocol_get_buffer)              \
    X(app_protocol_buffer_updated) X(transport) X(sslobj) X(incoming)       \
    X(outgoing) X(write_backlog) X(buffer)

static PyObject *
TlsProtocol_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                PyObject *Py_UNUSED(kwargs))
{
    TlsObject *self = (TlsObject *)type->tp_alloc(type, 0);

    if (self == NULL) {
        return NULL;
    }
#define X(name) self->name = Py_NewRef(Py_None);
    EACH_OBJECT(X)
#undef X
    Py_SETREF(self->write_backlog, PyList_New(0));
    self->state = state_of((PyObject *)self);
    if (self->write_backlog == NULL || self->state == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
TlsProtocol_traverse(TlsObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->native);
#define X(name) Py_VISIT(self->name);
    EACH_OBJECT(X)
#undef X
    return 0;
}

/* Methods may still be called: they count on a list, and on no NULL. */
static int
TlsProtocol_clear(TlsObject *self)
{
    if (PyList_SetSlice(self->write_backlog, 0, PY_SSIZE_T_MAX, NULL) < 0) {
        PyErr_Clear();
    }
    Py_CLEAR(self->native);
    Py_CLEAR(self->loop);
#define X(name)                                                             \
    if ((PyObject *)self->name != self->write_backlog) {                    \
        Py_XSETREF(self->name, Py_NewRef(Py_None));                         \
    }
    EACH_OBJECT(X)
#undef X
    return 0;
}

static void
TlsProtocol_dealloc(TlsObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->native);
#define X(name) Py_CLEAR(self->name);
    EACH_OBJECT(X)
#undef X
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(TlsProtocol_doc,
"What of asyncio's SSLProtocol runs per read and write.");

static PyType_Slot TlsProtocol_slots[] = {
    {Py_tp_doc, (void *)TlsProtocol_doc},
    {Py_tp_new, TlsProtocol_new},
    {Py_tp_dealloc, TlsProtocol_dealloc},
    {Py_tp_traverse, TlsProtocol_traverse},
    {Py_tp_clear, TlsProtocol_clear},
    {Py_tp_methods, TlsProtocol_methods},
    {Py_tp_members, TlsProtocol_members},
    {Py_tp_getset, TlsProtocol_getset},
    {0, NULL},
};

static PyType_Spec TlsProtocol_spec = {
    .name = "ouroloop._core.TlsProtocol",
    .basicsize = sizeof(TlsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE,
    .slots = TlsProtocol_slots,
};

int
TlsProtocol_setup_type(PyObject *module, module_state *state)
{
    state->TlsProtocolType = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &TlsProtocol_spec, NULL);
    return state->TlsProtocolType == NULL
        ? -1
        : PyModule_AddType(module, state->TlsProtocolType);
}

/* The transport. */

typedef struct {
    PyObject_HEAD
    /* The slots of asyncio's _FlowControlMixin. */
    PyObject *slots[5];
    /* Ours. */
    PyObject *ssl_protocol;
} TlsTransportObject;

static PyObject *
TlsTransport_write(TlsTransportObject *self, PyObject *const *args,
                   Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {"write", 1, 1, 1, {ARG(data)}};
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &ouroloop_module);
    module_state *state = module == NULL ? NULL : PyModule_GetState(module);
    PyObject *data;

    if (state == NULL ||
        parse_one_arg(state, &spec, args, nargs, kwnames, &data) < 0) {
        return NULL;
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        PyObject *name =
            PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "data: expecting a bytes-like instance, got %S",
                         name);
            Py_DECREF(name);
        }
        return NULL;
    }
    int any = PyObject_IsTrue(data);
    if (any <= 0) {
        return any < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *protocol = Py_NewRef(self->ssl_protocol), *result = NULL;
    if (PyObject_TypeCheck(protocol, state->TlsProtocolType)) {
        result = none_unless(Tls_write((TlsObject *)protocol, data, false));
    }
    else {
        result =
            PyObject_CallMethod(protocol, "_write_appdata", "((O))", data);
    }
    Py_DECREF(protocol);
    return result;
}

static PyObject *
TlsTransport_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                 PyObject *Py_UNUSED(kwargs))
{
    TlsTransportObject *self = (TlsTransportObject *)type->tp_alloc(type, 0);

    if (self != NULL) {
        self->ssl_protocol = Py_NewRef(Py_None);
    }
    return (PyObject *)self;
}

static int
TlsTransport_traverse(TlsTransportObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->ssl_protocol);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->slots); i++) {
        Py_VISIT(self->slots[i]);
    }
    return 0;
}

static int
TlsTransport_clear(TlsTransportObject *self)
{
    Py_XSETREF(self->ssl_protocol, Py_NewRef(Py_None));
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->slots); i++) {
        Py_CLEAR(self->slots[i]);
    }
    return 0;
}

static void
TlsTransport_dealloc(TlsTransportObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)TlsTransport_clear(self);
    Py_CLEAR(self->ssl_protocol);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(TlsTransport_doc,
"What of asyncio's SSL transport runs per write.");
PyDoc_STRVAR(write_doc,
"write($self, data)\n--\n\n"
"Send bytes, a bytearray or a memoryview; what is written in one callback\n"
"goes out together when it ends.\n\n"
"Raise TypeError for anything else.");

static PyMethodDef TlsTransport_methods[] = {
    {"write", (PyCFunction)(void (*)(void))TlsTransport_write,
     METH_FASTCALL | METH_KEYWORDS, write_doc},
    {NULL},
};

static PyGetSetDef TlsTransport_getset[] = {
    {"_ssl_protocol", get_object, set_object, NULL,
     (void *)offsetof(TlsTransportObject, ssl_protocol)},
    {NULL},
};

static PyType_Slot TlsTransport_slots[] = {
    {Py_tp_doc, (void *)TlsTransport_doc},
    {Py_tp_new, TlsTransport_new},
    {Py_tp_dealloc, TlsTransport_dealloc},
    {Py_tp_traverse, TlsTransport_traverse},
    {Py_tp_clear, TlsTransport_clear},
    {Py_tp_methods, TlsTransport_methods},
    {Py_tp_getset, TlsTransport_getset},
    {0, NULL},
};

static PyType_Spec TlsTransport_spec = {
    .name = "ouroloop._core.TlsTransport",
    .basicsize = sizeof(TlsTransportObject),
    /* Not immutable, as its base is not. */
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = TlsTransport_slots,
};

int
TlsTransport_setup_type(PyObject *module, module_state *state)
{
    PyObject *bases = PyTuple_Pack(1, state->_FlowControlMixin);

    if (bases == NULL) {
        return -1;
    }
    /* That the base's size is this has been asked for Transport. */
    state->TlsTransportType = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &TlsTransport_spec, bases);
    Py_DECREF(bases);
    return state->TlsTransportType == NULL
        ? -1
        : PyModule_AddType(module, state->TlsTransportType);
}

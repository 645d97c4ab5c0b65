/* The type of datagram transports, and how loop.create_datagram_endpoint()
   gets one. */
#include "ouroloop.h"

#include <netinet/in.h>

/* 1 if the address may be given to sendto(), 0 if not.  -1 with an exception.
   Runs Python. */
static int
is_allowed(DatagramObject *self, PyObject *address)
{
    return address == Py_None || address == self->address
        ? 1
        : PyObject_RichCompareBool(address, self->address, Py_EQ);
}

static PyObject *
refuse_data(PyObject *data)
{
    PyObject *name =
        PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");

    if (name != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not %R",
                     name);
        Py_DECREF(name);
    }
    return NULL;
}

static PyObject *
DatagramTransport_sendto(DatagramObject *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {"sendto", 2, 2, 1, {ARG(data), ARG(addr)}};
    PyObject *given[2];

    if (parse_args(self->transport.state, &spec, args, nargs, kwnames, given) <
        0) {
        return NULL;
    }
    PyObject *data = given[0];
    PyObject *address = given[1] == NULL ? Py_None : given[1];
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        return refuse_data(data);
    }
    if (COMPAT_EMPTY_DATAGRAM_DROPPED) {
        int truth = PyObject_IsTrue(data);
        if (truth < 0) {
            return NULL;
        }
        if (truth == 0) {
            Py_RETURN_NONE;
        }
    }
    if (self->address != NULL) {
        int allowed = is_allowed(self, address);
        if (allowed == 0) {
            PyErr_Format(PyExc_ValueError,
                         "Invalid address: must be None or %S", self->address);
        }
        if (allowed <= 0) {
            return NULL;
        }
        address = self->address;
        int lost = Transport_is_lost(&self->transport);
        if (lost < 0) {
            return NULL;
        }
        if (lost) {
            Py_RETURN_NONE;
        }
    }
    if (Datagram_send(self, data, address) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
DatagramTransport__read_ready(DatagramObject *self,
                              PyObject *Py_UNUSED(ignored))
{
    if (self->transport.loop != NULL && Datagram_read_ready(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
DatagramTransport__sendto_ready(DatagramObject *self,
                                PyObject *Py_UNUSED(ignored))
{
    if (self->transport.loop != NULL && Datagram_write_ready(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Life. */

static int
DatagramTransport_traverse(DatagramObject *self, visitproc visit, void *arg)
{
    datagram_queue *queue = &self->unsent;

    Py_VISIT(self->address);
    /* A destination may be any object; what was received is plain. */
    for (uint32_t i = 0; i < queue->count; i++) {
        Py_VISIT(
            queue->items[(queue->head + i) & (queue->capacity - 1)].address);
    }
    return Transport_traverse(&self->transport, visit, arg);
}

static int
DatagramTransport_clear(DatagramObject *self)
{
    Py_CLEAR(self->address);
    return Transport_clear(&self->transport);
}

static void
DatagramTransport_dealloc(DatagramObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->address);
    Datagram_forget_addresses(self);
    Transport_dealloc(&self->transport);
}

/* Does extra_info name a peer?  So the socket is connected for asyncio, which
   then sends without an address.  -1 with an exception. */
static int
has_peer(TransportObject *self)
{
    PyObject *peer = Transport_extra_info(self, self->state->str_peername);

    if (peer == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int truth = PyObject_IsTrue(peer);
    Py_DECREF(peer);
    return truth;
}

static int
socket_family(int fd)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof(name);

    return getsockname(fd, (struct sockaddr *)&name, &size) < 0
        ? AF_UNSPEC
        : name.ss_family;
}

static bool
is_datagram_socket(int fd)
{
    int type;
    socklen_t size = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
        type == SOCK_DGRAM;
}

/* _make_datagram_transport(sock, protocol, address=None, waiter=None,
   extra=None) */
PyObject *
Loop__make_datagram_transport(LoopObject *self, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "_make_datagram_transport",
        5,
        5,
        2,
        {ARG(sock), ARG(protocol), ARG(address), ARG(waiter), ARG(extra)}};
    PyObject *given[5];

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0 ||
        Fds_ensure_free(self, given[0]) < 0) {
        return NULL;
    }
    module_state *state = self->state;
    PyObject *const names[] = {state->str_recvfrom, state->str_send,
                               state->str_sendto, NULL};
    /* What sends or receives in a way of its own must be asked. */
    if (!Socket_is_plain(state, given[0], state->SocketType, names)) {
        return call_stock_loop(state, (PyObject *)self, spec.function, args,
                               nargs, kwnames);
    }
    for (int i = 2; i < 5; i++) {
        if (given[i] == Py_None) {
            given[i] = NULL;
        }
    }
    int fd = PyObject_AsFileDescriptor(given[0]);
    int has_address = given[2] == NULL ? 0 : PyObject_IsTrue(given[2]);
    if (fd < 0 || has_address < 0) {
        return NULL;
    }
    PyTypeObject *type = state->DatagramTransportType;
    DatagramObject *transport = (DatagramObject *)type->tp_alloc(type, 0);
    if (transport == NULL) {
        return NULL;
    }
    transport->transport.ops = &datagram_ops;
    transport->transport.max_size = STREAM_MAX_READ;
    transport->family = socket_family(fd);
    transport->is_datagram = is_datagram_socket(fd);
    transport->batch = transport->patience = 1;
    transport->address = has_address ? Py_NewRef(given[2]) : NULL;
    transport_origin from = {
        .loop = self,
        .fd = fd,
        .sock = given[0],
        .protocol = given[1],
        .waiter = given[3],
        .extra = given[4],
    };
    if (Transport_open(&transport->transport, &from) < 0) {
        Py_DECREF(transport);
        return NULL;
    }
    int connected = has_peer(&transport->transport);
    if (connected < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        (void)Transport_abort(&transport->transport, Py_None);
        PyErr_SetRaisedException(exc);
        Py_DECREF(transport);
        return NULL;
    }
    transport->connected = connected;
    return (PyObject *)transport;
}

PyDoc_STRVAR(DatagramTransport_doc,
"A socket that sends and receives datagrams; see asyncio.DatagramTransport.");
PyDoc_STRVAR(sendto_doc,
"sendto($self, /, data, addr=None)\n--\n\n"
"Send one datagram: bytes, a bytearray or a memoryview.\n\n"
"addr: where to; None for the address that the transport was made with.  What\n"
"the system refuses goes to the protocol's error_received().\n"
"Raise TypeError for other data, ValueError for an address other than the\n"
"one that the transport was made with.");

#define FAST(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef DatagramTransport_methods[] = {
    {"sendto", FAST(DatagramTransport_sendto), METH_FASTCALL | METH_KEYWORDS,
     sendto_doc},
    {"_read_ready", (PyCFunction)DatagramTransport__read_ready, METH_NOARGS,
     NULL},
    {"_sendto_ready", (PyCFunction)DatagramTransport__sendto_ready,
     METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef DatagramTransport_members[] = {
    {"_address", T_OBJECT, offsetof(DatagramObject, address), READONLY},
    {"max_size", T_UINT, offsetof(DatagramObject, transport.max_size), 0,
     "The most bytes of a datagram that are received."},
    {NULL},
};

static PyType_Slot DatagramTransport_slots[] = {
    {Py_tp_doc, (void *)DatagramTransport_doc},
    {Py_tp_dealloc, DatagramTransport_dealloc},
    {Py_tp_traverse, DatagramTransport_traverse},
    {Py_tp_clear, DatagramTransport_clear},
    {Py_tp_methods, DatagramTransport_methods},
    {Py_tp_members, DatagramTransport_members},
    {0, NULL},
};

static PyType_Spec DatagramTransport_spec = {
    .name = "ouroloop._core.DatagramTransport",
    .basicsize = sizeof(DatagramObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = DatagramTransport_slots,
};

int
DatagramTransport_setup_type(PyObject *module, module_state *state)
{
    PyObject *bases =
        PyTuple_Pack(2, state->TransportType, state->DatagramTransport);
    if (bases == NULL) {
        return -1;
    }
    state->DatagramTransportType = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &DatagramTransport_spec, bases);
    Py_DECREF(bases);
    return state->DatagramTransportType == NULL
        ? -1
        : PyModule_AddType(module, state->DatagramTransportType);
}

/* The part of the map that is about ways in and out: what transports consist
   of, and what their files offer.  Included by ouroloop.h in its place. */
#ifndef OUROLOOP_TRANSPORT_H
#define OUROLOOP_TRANSPORT_H

#include <sys/uio.h>

/* What one kind of transport does in its own way. */
typedef struct {
    uv_poll_cb on_event;
    /* Send what is held back until the end of a callback.  -1 only with an
       exception that must leave run_forever().  Runs Python. */
    int (*flush)(TransportObject *self);
    /* Drop what is not sent. */
    void (*discard)(TransportObject *self);
    /* End without a word to the protocol: the loop closes.  Runs Python. */
    void (*abandon)(TransportObject *self);
    /* Hand on what was read already: reading goes on after a pause.  NULL if
       nothing ever is. */
    int (*resumed)(TransportObject *self);
    /* Is an exception just the end of a connection, nothing to report?
       NULL: an OSError is. */
    bool (*is_ordinary)(PyObject *exc);
    /* What follows is for those whose on_event is Stream_on_event(). */
    /* The descriptor is readable, or its other end is closed; it is writable.
       -1 only with an exception that must leave run_forever().  Runs
       Python. */
    int (*read_ready)(TransportObject *self);
    int (*write_ready)(TransportObject *self);
    /* As recv(), and as sendmsg() of one part or more. */
    ssize_t (*receive)(int fd, void *buffer, size_t size);
    ssize_t (*send)(int fd, struct iovec *parts, size_t count);
    size_t max_held_back;    /* bytes that may wait for a callback's end */
    const char *write_error; /* message of a report */
    bool keeps_open;         /* its file, when the loop closes before it */
} transport_ops;

/* A protocol that needs no Python between itself and its transport. */
typedef struct {
    /* Input, in memory that is only lent.  -1 with any exception.  Runs
       Python. */
    int (*feed)(PyObject *protocol, char *data, size_t size);
    /* Write what it holds back until the end of a callback.  -1 only with an
       exception that must leave run_forever().  Runs Python. */
    int (*settle)(PyObject *protocol);
} direct_protocol;

/* An Internet address as the kernel gives it; AF_UNSPEC: none, or not one. */
typedef union {
    struct sockaddr any;
    struct sockaddr_in inet;
    struct sockaddr_in6 inet6;
} inet_address;

/* Bytes objects that wait to be sent, oldest first. */
enum { WRITE_QUEUE_INLINED = 2 };
typedef struct {
    PyObject **heap; /* NULL: they are in `inlined` */
    PyObject *inlined[WRITE_QUEUE_INLINED];
    uint32_t capacity, head, count;
    size_t sent; /* bytes of the first that are gone */
} write_queue;

struct TransportObject {
    PyObject_HEAD
    /* The slots of asyncio's _FlowControlMixin, which is our base because
       asyncio's sendfile() asks for it. */
    PyObject *extra; /* NULL: nobody has asked yet */
    PyObject *unused_high_water;
    LoopObject *loop; /* NULL once connection_lost() was called */
    PyObject *unused_low_water, *unused_protocol_paused;
    /* Ours. */
    PyObject *dict, *weakrefs;
    module_state *state;
    const transport_ops *ops;
    PyObject *protocol;            /* NULL once connection_lost() was called */
    const direct_protocol *direct; /* the protocol's; NULL: call its methods */
    PyObject *context;             /* of the protocol's callbacks */
    /* Of input, and of room for output, as on stock asyncio: the contexts of
       whoever has resumed reading, or written what was too much; NULL: the
       same.  That of whoever has written what is held back. */
    PyObject *read_context, *write_context, *held_context;
    PyObject *sock;         /* or pipe; NULL: nobody has asked for one yet */
    PyObject *server;       /* asyncio.Server that accepted it, or NULL */
    PyObject *waiter;       /* future, until connection_made() was called */
    PyObject *empty_waiter; /* future of sendfile(), or NULL */
    TransportObject *next_unflushed;
    LoopObject *home; /* borrowed: in whose table it stands, while open */
    uv_poll_t *uv;    /* the descriptor's, while open */
    int fd;
    int watched; /* what uv watches for, perhaps by the descriptor's watcher */
    write_queue queue;
    size_t unsent; /* bytes in the queue */
    size_t high_water, low_water;
    inet_address peer, local;
    uint32_t max_size, read_size; /* of one read: at most, expected */
    int conn_lost;                /* 0 until connection_lost() is scheduled */
    uint8_t large_reads;
    uint8_t found;    /* events that wait for their turn in the ready queue */
    bool open;        /* the descriptor is, and the loop keeps the transport */
    bool unwatchable; /* epoll refuses the descriptor: there is no uvhandle */
    bool duplicate;   /* `fd` is a duplicate of that of `sock` */
    bool closing;
    bool abandoned; /* the loop was closed first, and the file is still open */
    bool reading, paused;
    bool buffered;  /* the protocol is a BufferedProtocol */
    bool filled;    /* the last read got as much as it had room for */
    bool streams;   /* it is asyncio's StreamReaderProtocol */
    bool writing;   /* waits for the kernel to take more */
    bool held_back; /* in the loop's list of unflushed transports */
    bool eof, eof_sent;
    bool protocol_connected, protocol_paused;
    bool lent;        /* sendfile() may watch the descriptor */
    bool one_context; /* connection_lost(), too, is called in `context` */
};

/* A message and its address. */
typedef struct {
    PyObject *data, *address;
} datagram;

/* Oldest first.  Capacity is a power of two. */
typedef struct {
    datagram *items;
    uint32_t capacity, head, count;
} datagram_queue;

/* A sender's, as the kernel and as Python know it. */
typedef struct {
    PyObject *object; /* NULL: none yet */
    inet_address address;
    socklen_t size;
} known_address;

typedef struct {
    TransportObject transport;
    PyObject *address; /* where all goes; NULL: sendto() says it */
    datagram_queue unsent, received;
    known_address *known; /* the latest senders by port; NULL: none yet */
    int family;
    uint8_t batch;                 /* how many to ask the kernel for */
    uint8_t patience, until_probe; /* lone ones until it is asked for more */
    bool is_datagram;              /* of this type, not SOCK_SEQPACKET, … */
    bool connected;                /* the kernel knows where all goes */
    bool reading_queued;           /* for the loop's next turn */
} DatagramObject;

/* Waits for nothing: the loop is no reason to live, as on stock asyncio, where
   only a watched descriptor is. */
static inline bool
Transport_is_idle(TransportObject *self)
{
    return !self->reading && !self->writing;
}

/* What a new transport starts with.  All borrowed, NULL where there is none.
   Without a socket object the descriptor becomes the transport's. */
typedef struct {
    LoopObject *loop;
    int fd;
    PyObject *sock, *protocol, *waiter, *extra, *server;
    PyObject *context; /* NULL: a copy of the current one */
    bool one_context;  /* connection_lost(), too, is called in it */
    bool pipe;         /* without addresses, and perhaps not to be watched */
    bool duplicate;    /* `fd` is one of that of `sock` */
    const struct sockaddr *peer; /* NULL: ask the kernel */
    socklen_t peer_size;
} transport_origin;

enum { TLS_RECORD = 16 * 1024 }; /* most bytes in one record */

/* What asyncio.sslproto.SSLProtocolState tells. */
enum tls_phase {
    TLS_UNWRAPPED,
    TLS_DO_HANDSHAKE,
    TLS_WRAPPED,
    TLS_FLUSHING,
    TLS_SHUTDOWN,
};

/* Where in a record the bytes end that have come so far. */
typedef struct {
    size_t missing;    /* bytes of the record that are still to come */
    size_t incomplete; /* bytes at the end of the input that no read can use */
    uint8_t header[5], header_size;
    bool followed; /* false: unknown, any byte may be of use */
} record_tracker;

/* The hot half of asyncio.sslproto.SSLProtocol.  Objects are owned, and None
   rather than NULL; each is the attribute of the protocol that asyncio names
   so, with an underscore. */
typedef struct {
    PyObject_HEAD
    module_state *state;
    LoopObject *loop; /* NULL: not initialised */
    PyObject *phase_object;
    PyObject *app_protocol, *app_protocol_get_buffer;
    PyObject *app_protocol_buffer_updated;
    PyObject *transport; /* the one below */
    PyObject *sslobj;
    PyObject *native; /* the _ssl object in sslobj that does the work; NULL if
                         a subclass or a stand-in is to be asked */
    PyObject *incoming, *outgoing;
    PyObject *write_backlog; /* a list */
    PyObject *buffer;        /* a bytearray for what comes from transports that
                                are not ours, or None */
    Py_ssize_t write_buffer_size;
    Py_ssize_t outgoing_high_water, outgoing_low_water;
    Py_ssize_t incoming_high_water, incoming_low_water;
    record_tracker records;
    enum tls_phase phase;
    int conn_lost;
    bool app_protocol_is_buffer;
    bool app_reading_paused, app_writing_paused;
    bool ssl_reading_paused, ssl_writing_paused;
    bool started;   /* input has come */
    bool held_back; /* what is written waits for the end of the callback */
    bool leftover;  /* the last read may have left a part of a record */
    bool grown;     /* `outgoing` has memory for a large slice */
} TlsObject;

/* extra_info.c -- addresses and socket object of a transport */

/* As the socket module shows it.  New; NULL without an exception for a family
   that is not known here. */
PyObject *Address_object(const struct sockaddr *address, socklen_t size);
/* Ask the kernel, now or at the end, for what it may forget. */
int Transport_learn_addresses(TransportObject *self,
                              const transport_origin *from);
void Transport_learn_sockname(TransportObject *self);
/* The socket object, made if need be.  New.  Runs Python. */
PyObject *Transport_get_socket(TransportObject *self);
/* New; NULL without an exception if there is none.  Runs Python. */
PyObject *Transport_extra_info(TransportObject *self, PyObject *name);
/* The dict of all of it.  New.  Runs Python. */
PyObject *Transport_all_extra_info(TransportObject *self);
/* Are these methods, up to a NULL, those of that type of the socket module's?
   Then a system call does the same as they do. */
bool Socket_is_plain(module_state *state, PyObject *sock, PyObject *type,
                     PyObject *const *names);

/* transport.c -- what all transports share.  Where an int is returned, -1
   comes only with an exception that must leave run_forever(); others have
   gone to the exception handler or closed the connection. */

/* Fill a fresh object, watch its descriptor and queue connection_made().  -1
   with any exception; the descriptor is the caller's then.  Runs Python. */
int Transport_open(TransportObject *self, const transport_origin *from);
/* Enter a context, around calls of the protocol, unless it is the current one.
   Leave takes what enter has returned. */
int context_enter(PyObject *context);
int context_leave(PyObject *context, int entered);
/* protocol.method(arg), or without argument for NULL.  New.  Runs Python. */
PyObject *Transport_call(TransportObject *self, PyObject *method,
                         PyObject *arg);
/* logger.debug(format, self[, detail], exc_info=exc).  Runs Python. */
int Transport_log(TransportObject *self, const char *format, PyObject *detail,
                  PyObject *exc);
/* Have the kernel report what the transport waits for; input that it does not
   wait for may go on being reported until Transport_unwatch(). */
int Transport_watch(TransportObject *self);
int Transport_unwatch(TransportObject *self);
/* Call pause_writing() or resume_writing() if it is time.  Runs Python. */
int Transport_maybe_pause(TransportObject *self);
int Transport_maybe_resume(TransportObject *self);
/* A number of any type, which asyncio takes where it compares with a number of
   bytes; what is too large is the most that a size can be.  -1 with any
   exception.  Runs Python. */
int Transport_as_size(PyObject *number, Py_ssize_t *size);
/* Numbers or None; -1 with any exception.  Runs Python. */
int Transport_set_limits(TransportObject *self, PyObject *high, PyObject *low);
int Transport_set_protocol(TransportObject *self, PyObject *protocol);
/* Close once all is sent.  Runs Python. */
int Transport_close(TransportObject *self);
/* The kernel has taken the last bytes: a closing transport ends, and the
   protocol is told at once.  -1 with any exception.  Runs Python. */
int Transport_drained(TransportObject *self);
/* Close now, but send what is held back; exc is what connection_lost() gets.
   Runs Python. */
int Transport_abort(TransportObject *self, PyObject *exc);
/* Close now because of an error, which is reported if it is no OSError.  The
   set exception for Transport_fatal_error().  Runs Python. */
int Transport_end_with(TransportObject *self, PyObject *exc,
                       PyObject *message);
int Transport_fatal_error(TransportObject *self, const char *message);
/* 1 if nothing can be written any more; who does not notice is told in the
   log.  -1 with any exception. */
int Transport_is_lost(TransportObject *self);
/* Set an exception unless the future is done.  Runs Python. */
int Transport_fail_waiter(PyObject *waiter, PyObject *exc);
/* The method: the last that the protocol hears.  Runs Python. */
PyObject *Transport_call_connection_lost(TransportObject *self, PyObject *exc);
/* As transport_ops.abandon. */
void Transport_abandon(TransportObject *self);

/* transport_type.c -- the base type of transports */

int Transport_setup_type(PyObject *module, module_state *state);
int Transport_traverse(TransportObject *self, visitproc visit, void *arg);
int Transport_clear(TransportObject *self);
void Transport_dealloc(TransportObject *self);
/* The methods that a transport which only reads has, too. */
extern PyMethodDef Transport_methods[];
#define TRANSPORT_READ_METHODS (&Transport_methods[7])

/* streams.c -- the classes of asyncio's streams */

/* What is in a plain StreamReader: borrowed references out of its dict, valid
   until Python code runs; on 3.11 owned ones, and no dict. */
typedef struct {
    PyObject *dict; /* owned */
    PyObject *buffer, *eof, *waiter, *paused, *limit, *transport, *loop,
        *exception;
    long long limit_bytes;
} reader_view;

int Streams_setup(module_state *state);
int Streams_traverse(module_state *state, visitproc visit, void *arg);
void Streams_clear(module_state *state);
/* See below. */
bool Streams_look_again(stock_class *self);
/* Is the class as asyncio made it? */
static inline bool
Streams_is_stock(stock_class *self)
{
    return self->tag != 0 && compat_type_tag(self->type) == self->tag
        ? self->intact
        : Streams_look_again(self);
}
/* Look into a reader; false: it is not plain, or paused.  To be closed
   afterwards. */
bool Streams_view(module_state *state, PyObject *reader, reader_view *view);
void Streams_close_view(reader_view *view);
/* protocol.data_received(data) for any protocol, if that is asyncio's own and
   there is nothing special about it: 1.  0: nothing was done, do call it.  -1:
   it failed, with any exception. */
int Streams_feed(module_state *state, PyObject *protocol, const char *data,
                 Py_ssize_t size);

/* stream_calls.c -- await reader.readline() without a coroutine */

enum stream_method {
    STREAM_READ,
    STREAM_READEXACTLY,
    STREAM_READUNTIL,
    STREAM_READLINE,
    STREAM_DRAIN,
};
int StreamCall_setup_type(PyObject *module, module_state *state);
/* New, of asyncio's function with these arguments; argument may be NULL.  size
   is read()'s and readexactly()'s argument, else 0. */
PyObject *StreamCall_new(module_state *state, enum stream_method kind,
                         PyObject *function, PyObject *stream,
                         PyObject *argument, Py_ssize_t size);

/* stream_methods.c -- how the methods of asyncio's streams are called */

/* Have them give StreamCalls, or be called as before. */
int StreamMethods_setup(module_state *state);
void StreamMethods_clear(module_state *state);

/* stream_write.c -- bytes out of a stream transport */

/* What os.write() would take, as a bytes object that stays as it is.  New. */
PyObject *Stream_copy(PyObject *data);
/* Append to what is to be sent.  Steals the reference, also on failure. */
int Stream_queue(TransportObject *self, PyObject *bytes);
/* Send it when the callback that runs now ends, or at once if none runs or it
   has become much.  Runs Python. */
int Stream_send_later(TransportObject *self);
/* Have Stream_flush() look at it. */
void Stream_hold_back(TransportObject *self);
/* Send what is held back.  Runs Python. */
int Stream_settle(TransportObject *self);
/* The same for all that was written in the callback that has just returned.
   Keeps the set exception.  Runs Python. */
void Stream_flush(LoopObject *self);
/* transport_ops.send of a socket. */
ssize_t Stream_send(int fd, struct iovec *parts, size_t count);
/* The kernel takes more.  Runs Python. */
int Stream_write_ready(TransportObject *self);
/* As transport_ops.discard. */
void Stream_discard(TransportObject *self);
/* End the outgoing half.  -1 with OSError. */
int Stream_shut_down(TransportObject *self);

/* stream.c -- bytes into a stream transport, and its events */

enum {
    STREAM_MAX_READ = 256 * 1024,    /* as asyncio's max_size */
    STREAM_MAX_HELD_BACK = 64 * 1024 /* bytes, until a callback's end */
};
extern const transport_ops stream_ops;
/* transport_ops.on_event. */
void Stream_on_event(uv_poll_t *uv, int status, int events);
/* After a poll that has left loop->first_found.  Runs Python. */
void Stream_end_poll(LoopObject *loop);
/* New bytes object with the input, of size 0 at the end of it.  NULL with an
   exception, or without one and with errno. */
PyObject *Stream_read_bytes(TransportObject *self);
/* The memory that all reads of a loop share, of STREAM_MAX_READ bytes: free
   for whoever runs, until Python code runs.  NULL: MemoryError. */
char *Stream_shared_buffer(LoopObject *loop);

/* stream_type.c -- the type of stream transports */

int StreamTransport_setup_type(PyObject *module, module_state *state);
/* The method write(), with an object of exactly the type bytes, not empty.
   Steals the reference.  more: another call follows at once, and this waits
   for it, because each system call may wake the peer.  -1 with any exception.
   Runs Python. */
int Stream_write(TransportObject *self, PyObject *bytes, bool more);
/* New StreamTransport.  On failure the descriptor stays the caller's. */
PyObject *Stream_new(const transport_origin *from);
PyObject *Loop__make_socket_transport(LoopObject *self, PyObject *const *args,
                                      Py_ssize_t nargs, PyObject *kwnames);

/* udp.c -- datagrams, and the events of their sockets */

extern const transport_ops datagram_ops;
/* Send it, or queue it while the kernel is full.  The three return -1 with any
   exception and run Python. */
int Datagram_send(DatagramObject *self, PyObject *data, PyObject *address);
/* The kernel takes more, or has something. */
int Datagram_write_ready(DatagramObject *self);
int Datagram_read_ready(DatagramObject *self);

/* Drop what is kept to show addresses quickly. */
void Datagram_forget_addresses(DatagramObject *self);

/* udp_type.c -- the type of datagram transports */

int DatagramTransport_setup_type(PyObject *module, module_state *state);
PyObject *Loop__make_datagram_transport(LoopObject *self,
                                        PyObject *const *args,
                                        Py_ssize_t nargs, PyObject *kwnames);
/* pipe.c -- pipes, FIFOs and terminals */

int ReadPipeTransport_setup_type(PyObject *module, module_state *state);
int WritePipeTransport_setup_type(PyObject *module, module_state *state);
PyObject *Loop__make_read_pipe_transport(LoopObject *self,
                                         PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop__make_write_pipe_transport(LoopObject *self,
                                          PyObject *const *args,
                                          Py_ssize_t nargs, PyObject *kwnames);

/* sock.c -- what sock_recv() and its kin await */

int SockCall_setup_type(PyObject *module, module_state *state);
/* New awaitables; the arguments are the socket's method's behind the socket,
   but of sock_sendfile(): sock, file number, offset, count or 0, size. */
PyObject *Loop__call_recv(LoopObject *self, PyObject *const *args,
                          Py_ssize_t nargs);
PyObject *Loop__call_recv_into(LoopObject *self, PyObject *const *args,
                               Py_ssize_t nargs);
PyObject *Loop__call_recvfrom(LoopObject *self, PyObject *const *args,
                              Py_ssize_t nargs);
PyObject *Loop__call_recvfrom_into(LoopObject *self, PyObject *const *args,
                                   Py_ssize_t nargs);
PyObject *Loop__call_accept(LoopObject *self, PyObject *const *args,
                            Py_ssize_t nargs);
PyObject *Loop__call_sendall(LoopObject *self, PyObject *const *args,
                             Py_ssize_t nargs);
PyObject *Loop__call_sendto(LoopObject *self, PyObject *const *args,
                            Py_ssize_t nargs);
PyObject *Loop__call_connect(LoopObject *self, PyObject *const *args,
                             Py_ssize_t nargs);
PyObject *Loop__call_sendfile(LoopObject *self, PyObject *const *args,
                              Py_ssize_t nargs);

/* server.c -- accepting connections */

int Listener_setup_type(PyObject *module, module_state *state);
PyObject *Loop__start_serving(LoopObject *self, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames);

/* tls_write.c -- what is written becomes records.  Where an int is returned,
   -1 comes with any exception. */

/* sslobj.pending of a MemoryBIO. */
Py_ssize_t Tls_pending(PyObject *bio);
/* Is the set exception one that asks for more input?  Then it is cleared. */
bool Tls_is_again(TlsObject *self);
/* Memory for records in parts, as Stream_shared_buffer(). */
char *Tls_scratch(TlsObject *self);
/* End the connection with the set exception.  Runs Python. */
int Tls_fail(TlsObject *self);
/* protocol.method(), result dropped.  Runs Python. */
int Tls_call(PyObject *object, PyObject *method);
/* The methods of the same names.  They run Python. */
int Tls_do_write(TlsObject *self);
int Tls_process_outgoing(TlsObject *self);
int Tls_control_app_writing(TlsObject *self);
/* The method _write_appdata(), of one piece of data or an iterable.  Runs
   Python. */
int Tls_write(TlsObject *self, PyObject *data, bool many);
/* As direct_protocol.settle. */
int Tls_settle(PyObject *self);

/* tls.c -- records become what is read */

extern const direct_protocol tls_direct;
/* The methods _do_read() and _control_ssl_reading().  They run Python. */
int Tls_do_read(TlsObject *self);
int Tls_control_ssl_reading(TlsObject *self);

/* tls_type.c -- the types behind asyncio's SSL protocol and transport */

int TlsProtocol_setup_type(PyObject *module, module_state *state);
int TlsTransport_setup_type(PyObject *module, module_state *state);

#endif

/* What one interpreter's copy of the module owns.  Add a name to one list
   and it is created, visited and cleared everywhere. */
#ifndef OUROLOOP_STATE_H
#define OUROLOOP_STATE_H

#include "compat.h"

/* Types made by <Name>_setup_type(), in this order. */
#define STATE_TYPES(X)                                                     \
    X(Handle) X(TimerHandle) X(ThreadSafeHandle) X(Loop) X(FutureIter) X(Future) X(TaskStep)   \
    X(Task) X(Transport) X(StreamTransport) X(StreamCall)                  \
    X(DatagramTransport) X(ReadPipeTransport) X(WritePipeTransport)        \
    X(SockCall) X(Listener) X(TlsProtocol) X(TlsTransport)

/* Interned strings, as state->str_<name>. */
#define STATE_STRINGS(X)                                                   \
    X(Future)                                                              \
    X(Task)                                                                \
    X(_app_transport)                                                      \
    X(_asyncio_future_blocking)                                            \
    X(_attach)                                                             \
    X(_buffer)                                                             \
    X(_call_connection_lost)                                               \
    X(_call_eof_received)                                                  \
    X(_connection_lost)                                                    \
    X(_detach)                                                             \
    X(_do_flush)                                                           \
    X(_do_handshake)                                                       \
    X(_do_read)                                                            \
    X(_do_shutdown)                                                        \
    X(_drain_helper)                                                       \
    X(_eof)                                                                \
    X(_exception)                                                          \
    X(_fatal_error)                                                        \
    X(_limit)                                                              \
    X(_loop)                                                               \
    X(_make_cancelled_error)                                               \
    X(_name_)                                                              \
    X(_paused)                                                             \
    X(_protocol)                                                           \
    X(_reader)                                                             \
    X(_start_shutdown)                                                     \
    X(_stream_reader_wr)                                                   \
    X(_transport)                                                          \
    X(_transports)                                                         \
    X(_wait_for_data)                                                      \
    X(_waiter)                                                             \
    X(_wakeup_waiter)                                                      \
    X(_write_appdata)                                                      \
    X(accept)                                                              \
    X(add_done_callback)                                                   \
    X(addr)                                                                \
    X(address)                                                             \
    X(backlog)                                                             \
    X(buffer_updated)                                                      \
    X(call_exception_handler)                                              \
    X(call_soon)                                                           \
    X(cancel)                                                              \
    X(connect)                                                             \
    X(connection_lost)                                                     \
    X(connection_made)                                                     \
    X(context)                                                             \
    X(coro)                                                                \
    X(create_future)                                                       \
    X(data)                                                                \
    X(data_received)                                                       \
    X(datagram_received)                                                   \
    X(default)                                                             \
    X(done)                                                                \
    X(eager_start)                                                         \
    X(eof_received)                                                        \
    X(error_received)                                                      \
    X(exc)                                                                 \
    X(exception)                                                           \
    X(extra)                                                               \
    X(feed_data)                                                           \
    X(fileno)                                                              \
    X(get_buffer)                                                          \
    X(get_loop)                                                            \
    X(gettimeout)                                                          \
    X(high)                                                                \
    X(is_running)                                                          \
    X(list_of_data)                                                        \
    X(loop)                                                                \
    X(low)                                                                 \
    X(message)                                                             \
    X(name)                                                                \
    X(pause_reading)                                                       \
    X(pause_writing)                                                       \
    X(peername)                                                            \
    X(pending)                                                             \
    X(pipe)                                                                \
    X(proto)                                                               \
    X(protocol)                                                            \
    X(protocol_factory)                                                    \
    X(read)                                                                \
    X(readuntil)                                                           \
    X(recv)                                                                \
    X(recv_into)                                                           \
    X(recvfrom)                                                            \
    X(recvfrom_into)                                                       \
    X(result)                                                              \
    X(resume_reading)                                                      \
    X(resume_writing)                                                      \
    X(send)                                                                \
    X(sendfile)                                                            \
    X(sendmsg)                                                             \
    X(sendto)                                                              \
    X(server)                                                              \
    X(set_result)                                                          \
    X(setblocking)                                                         \
    X(shutdown)                                                            \
    X(sock)                                                                \
    X(socket)                                                              \
    X(sockname)                                                            \
    X(source_traceback)                                                    \
    X(ssl_handshake_timeout)                                               \
    X(ssl_shutdown_timeout)                                                \
    X(sslcontext)                                                          \
    X(throw)                                                               \
    X(time)                                                                \
    X(waiter)                                                              \
    X(write)

/* Objects of the standard library, as state-><name>. */
#define STATE_IMPORTS(X)                                                   \
    X("asyncio", futures)                                                  \
    X("asyncio", sslproto)                                                 \
    X("asyncio", tasks)                                                    \
    X("asyncio.base_events", BaseEventLoop)                                \
    X("asyncio.base_events", Server)                                       \
    X("asyncio.base_events", _check_ssl_socket)                            \
    X("asyncio.base_events", _set_nodelay)                                 \
    X("asyncio.constants", ACCEPT_RETRY_DELAY)                             \
    X("asyncio.constants", _SendfileMode)                                  \
    X("asyncio.coroutines", iscoroutine)                                   \
    X("asyncio.events", Handle)                                            \
    X("asyncio.events", TimerHandle)                                       \
    X("asyncio.exceptions", CancelledError)                                \
    X("asyncio.exceptions", InvalidStateError)                             \
    X("asyncio.exceptions", SendfileNotAvailableError)                     \
    X("asyncio.format_helpers", _format_callback_source)                   \
    X("asyncio.format_helpers", extract_stack)                             \
    X("asyncio.futures", _set_result_unless_cancelled)                     \
    X("asyncio.log", logger)                                               \
    X("asyncio.protocols", BufferedProtocol)                               \
    X("asyncio.streams", StreamReader)                                     \
    X("asyncio.streams", StreamReaderProtocol)                             \
    X("asyncio.streams", StreamWriter)                                     \
    X("asyncio.tasks", current_task)                                       \
    X("asyncio.transports", DatagramTransport)                             \
    X("asyncio.transports", ReadTransport)                                 \
    X("asyncio.transports", _FlowControlMixin)                             \
    X("asyncio.trsock", TransportSocket)                                   \
    X("_socket", SocketType)                                               \
    X("signal", set_wakeup_fd)                                             \
    X("socket", AddressFamily)                                             \
    X("socket", SocketKind)                                                \
    X("socket", gaierror)                                                  \
    X("socket", socket)

/* Dead objects of one type, kept to be used again. */
#define FREE_LIST_MAX 256
typedef struct {
    PyObject *objects[FREE_LIST_MAX];
    int count;
} free_list;

/* A class of asyncio's streams, and whether it still is as asyncio made it:
   see streams.c. */
typedef struct {
    PyTypeObject *type;
    PyObject *dicts;    /* of its and its bases' attributes; NULL: patched */
    PyObject *any_name; /* borrowed */
    unsigned int tag;   /* of the class when that was last looked at, or 0 */
    bool intact;        /* what was found then */
} stock_class;

enum { STREAM_METHODS = 5 };
typedef struct {
    bool off;     /* by OUROLOOP_STOCK_STREAMS, or for a moment */
    bool claimed; /* methods of these classes are called by way of ours */
    stock_class reader, protocol, writer;
    PyObject *functions[STREAM_METHODS], *codes[STREAM_METHODS];
    PyObject *stop;              /* StopIteration, to be used again */
    unsigned char get_awaitable; /* the instruction */
    vectorcallfunc call_in_python;
    free_list free_calls;
} stream_facts;

/* What proof.c found out about asyncio, and its registers: see there and in
   registry.c.  Objects are owned. */
typedef struct {
    const char *layout;      /* of the running interpreter, as in layout.h */
    const char *reason;      /* why fast_types is false; else NULL */
    bool fast_types;         /* Future and Task are ours */
    bool native_registers;   /* written directly, not through functions */
    bool keeps_exception_tb; /* result() leaves exception_tb where it is */
    PyTypeObject *FutureType, *TaskType; /* asyncio's own */
    PyObject *iterator;                  /* an ended one of asyncio's Future */
    PyObject *no_args;                   /* () */
    PyObject *context_kwname;            /* ("context",) */
    PyObject *enter_task, *leave_task, *register_task, *swap_current_task;
    PyObject *current_tasks; /* dict, until 3.13 */
    PyObject *task_set;      /* the set that lists our tasks, until 3.13 */
    /* Offsets into the thread state, since 3.14. */
    size_t running_loop, running_task, task_list;
} asyncio_facts;

struct LoopObject;

typedef struct module_state {
#define X(name) PyTypeObject *name##Type;
    STATE_TYPES(X)
#undef X
#define X(name) PyObject *str_##name;
    STATE_STRINGS(X)
#undef X
#define X(module, name) PyObject *name;
    STATE_IMPORTS(X)
#undef X
    struct LoopObject *open_loops; /* of this interpreter; see fork.c */
    bool task_kwargs; /* create_task() passes on any keyword argument */
    bool server_keeps_clients; /* Server._attach() takes the transport */
    /* Free lists of handles, linked through their callback field. */
    void *free_handles, *free_timers;
    int free_handle_count, free_timer_count;
    /* Futures and tasks. */
    asyncio_facts stock;
    free_list free_futures, free_tasks, free_iterators;
    stream_facts streams;
    uint64_t task_count; /* for the names of unnamed tasks */
} module_state;

extern struct PyModuleDef ouroloop_module;

/* Works for subclasses too; on hot paths keep the pointer in the object. */
static inline module_state *
state_of(PyObject *self)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &ouroloop_module);
    return module == NULL ? NULL : (module_state *)PyModule_GetState(module);
}

#endif

/* The map of the module: every struct that more than one file sees, then what
   each file offers, one line of contract each.  A file calls only files
   listed above it.  "new" and "borrowed" speak of the returned reference;
   "runs Python" warns that anything may have changed afterwards. */
#ifndef OUROLOOP_H
#define OUROLOOP_H

#include "compat.h"

#include "args.h"
#include "layout.h"
#include "state.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define CONTAINER_OF(ptr, type, member) \
    ((type *)((char *)(ptr)-offsetof(type, member)))

typedef struct LoopObject LoopObject;
typedef struct TransportObject TransportObject;

/* A callback that waits in the loop: asyncio.Handle.  Not known to the GC: it
   is visited as a part of the loop. */
typedef struct {
    PyObject_HEAD
    PyObject *weakrefs;
    LoopObject *loop;
    PyObject *callback;         /* NULL once run or cancelled */
    PyObject *args;             /* NULL, the one argument, or a tuple */
    PyObject *context;          /* NULL once the loop is done with it */
    PyObject *source_traceback; /* debug mode, else NULL */
    PyObject *repr;             /* debug mode, once cancelled, else NULL */
    Py_ssize_t nargs;
    bool cancelled;
    bool stays; /* a descriptor's: it runs again and again */
} HandleObject;

/* asyncio.TimerHandle. */
typedef struct {
    HandleObject handle;
    PyObject *when_object; /* as the user gave it; NULL: a float of `when` */
    double when;           /* seconds on the loop's clock */
    bool scheduled;        /* in the loop's heap */
} TimerHandleObject;

/* A Handle that other threads may cancel; see handle.c. */
typedef struct {
    HandleObject handle;
    unsigned long running_in;    /* the thread that runs the callback, or 0 */
    PyThread_type_lock finished; /* what other threads wait for; lazily made */
} ThreadSafeHandleObject;

/* What a ready_entry asks for.  The low bits of its `object`. */
enum ready_kind {
    READY_HANDLE,  /* run the HandleObject */
    READY_STEP,    /* step the TaskObject; arg: exception to throw, or NULL */
    READY_WAKEUP,  /* the TaskObject awaited the future in arg, now done */
    READY_CALL,    /* call object(arg) in context: a future's callback */
    READY_NATIVE,  /* call ((native_call)arg)(object): work of our own */
    READY_RESOLVE, /* None is the result of the future, if it is pending */
};
#define READY_KIND_MASK ((uintptr_t)7)

/* Work of our own on the ready queue.  Runs Python; on failure reports it
   through Loop_report() and leaves no exception set. */
typedef void (*native_call)(PyObject *object);

typedef struct {
    uintptr_t object; /* owned PyObject *, tagged with its ready_kind */
    PyObject *arg;    /* owned, or a native_call */
    PyObject *context;
} ready_entry;

/* FIFO of what runs in the next turn.  Capacity is a power of two. */
typedef struct {
    ready_entry *entries;
    size_t capacity, head, count;
} ready_queue;

typedef struct {
    double when;
    TimerHandleObject *timer; /* owned */
} timer_entry;

/* Binary heap, ordered exactly as heapq orders asyncio's. */
typedef struct {
    timer_entry *entries;
    size_t capacity, count;
    size_t cancelled; /* of count */
    double armed_for; /* deadline that ends the wait; INFINITY: none */
    bool wake_open;   /* false until a turn first waits for a timer */
#if COMPAT_TIMERFD
    uv_poll_t wake; /* on wake_fd, a timerfd */
    int wake_fd;
#else
    uv_timer_t wake;
#endif
} timer_heap;

/* A call of sock_*() that waits for a descriptor. */
typedef struct fd_waiter {
    struct fd_waiter *next, *previous;
    struct fd_watcher *watcher; /* NULL: does not wait */
    int event;                  /* UV_READABLE or UV_WRITABLE */
    bool again; /* to be told although nothing changes: it is ready already */
    PyObject *owner;  /* what it is a part of; owned while it waits */
    PyObject *sock;   /* borrowed from the owner */
    PyObject *future; /* the owner's; done once it may try again */
} fd_waiter;

/* Who waits for one file descriptor: add_reader(), add_writer(), sock_*(). */
typedef struct fd_watcher {
    uv_poll_t uv;
    LoopObject *loop; /* borrowed: the loop outlives its uvhandles */
    PyObject *file;   /* as add_reader() was given it, or NULL */
    HandleObject *reader, *writer;
    fd_waiter *first, *last; /* oldest first */
    PyObject *sock;          /* weak reference, to whose calls came last */
    int fd;
    int events;       /* what uv watches for; 0: nothing */
    bool changes;     /* epoll reports changes only, or will after a poll */
    uint8_t unwanted; /* times that this came and nobody waited for it */
} fd_watcher;

/* Who uses a file descriptor. */
typedef struct {
    fd_watcher *watcher;
    TransportObject *transport; /* owned: an open transport lives */
    uv_poll_t *uv; /* the transport's, or the last one's and kept for the
                      next; `data` is the transport, or else the loop */
} fd_entry;

struct LoopObject {
    PyObject_HEAD
    module_state *state;

    ready_queue ready;
    timer_heap timers;
    PyObject *current_task; /* left in asyncio's register; see registry.c */
    Py_hash_t hash; /* of the loop, for that register; 0: not known yet */
    /* Owned list of transports with bytes that are held back, first and last,
       and whether somebody is going to call Stream_flush(). */
    TransportObject *unflushed, *last_unflushed;
    bool collecting;

    /* BaseEventLoop's own attributes, kept where C reads them. */
    PyObject *task_factory;     /* NULL: none */
    PyObject *current_handle;   /* debug mode; NULL: none */
    PyObject *thread_id;        /* NULL: not running */
    unsigned long thread_ident; /* thread_id as C knows it */
    bool debug, closed, stopping;

    /* A subclass, or an attribute of the instance, replaces the method. */
    bool custom_call_soon, custom_create_future, custom_time;

    bool polling;          /* uv_run() runs, and cannot be entered again */
    bool may_block;        /* this turn may wait in the kernel */
    PyThreadState *parked; /* not NULL while the GIL is let go to wait */
    bool wake_sent;        /* since it was let go; once is enough */
    PyObject *error;       /* SystemExit or KeyboardInterrupt on its way */
    bool poll_next;        /* even though work is ready */
    uint64_t last_poll_ns;
    size_t entries_since_poll;
    size_t batch;       /* entries of this turn */
    size_t found_count; /* transports for which this poll has found events */
    TransportObject *first_found; /* of those, if nothing waited; owned */

    uv_loop_t uv;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_async_t wake; /* call_soon_threadsafe() */
    bool uv_open;    /* uv_loop_init() was done, uv_loop_close() not */
    bool inherited;  /* this process is a fork of the loop's */
    LoopObject *next_loop, *previous_loop; /* open ones; see fork.c */

    fd_entry *fds; /* indexed by file descriptor */
    int fd_count;
    int *armed; /* descriptors that uv registers at the next poll */
    size_t armed_count, armed_capacity;
    size_t armed_checked; /* of them, right before the poll */
    size_t waiters;       /* of all descriptors */
    /* Looks for sockets that were closed under a waiter; see run.c. */
    uv_timer_t closed_timer;
    bool ran, looked; /* anything since it last looked; only it, just now */

    uv_poll_t signal_watcher;
    int signal_fds[2];   /* read end, write end; -1: not made */
    int outer_wakeup_fd; /* what signal.set_wakeup_fd() had before us */
    bool signal_attached;

    char *read_buffer;   /* shared by all sockets; NULL until first read */
    char *batch_buffer;  /* the same, for several datagrams at once */
    Py_ssize_t received; /* bytes, by the last sock_recv() */

    struct lookup *lookups;  /* that somebody may wait for; see dns.c */
    uv_async_t lookups_done; /* some are */
    bool resolver_open;      /* lookups_done is */
};

/* Take the GIL back after a wait.  The first line of every on_*(). */
static inline void
Loop_enter(LoopObject *self)
{
    if (self->parked != NULL) {
        PyEval_RestoreThread(self->parked);
        self->parked = NULL;
    }
}

/* error.c -- errors that have no Python caller */

/* Between the two, `exc` is what sys.exc_info() tells, as in an "except"
   clause: handlers log it from there.  `outer` keeps what was told before. */
typedef struct {
    PyObject *type, *value, *traceback;
} handled_exception;
void begin_handling(PyObject *exc, handled_exception *outer);
void end_handling(handled_exception *outer);

/* Set OSError (or its subclass) for a libuv error.  Always NULL. */
PyObject *raise_uv(int err);
/* Pass the set exception to loop.call_exception_handler() with `message` and,
   unless NULL, {key: source}.  SystemExit and KeyboardInterrupt instead leave
   run_forever().  Clears the exception.  Runs Python. */
void Loop_report(LoopObject *self, const char *message, const char *key,
                 PyObject *source);
/* Leave run_forever() with the set exception; clears it. */
void Loop_fail(LoopObject *self);
/* Is the set exception one that may not be swallowed? */
static inline bool
is_fatal(void)
{
    return PyErr_ExceptionMatches(PyExc_SystemExit) ||
        PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

/* handle.c -- Handle and TimerHandle: one callback with its context */

/* New.  context NULL: a copy of the current one. */
HandleObject *Handle_new(LoopObject *loop, PyObject *callback,
                         PyObject *const *args, Py_ssize_t nargs,
                         PyObject *context);
/* New, for call_soon_threadsafe(). */
HandleObject *ThreadSafeHandle_new(LoopObject *loop, PyObject *callback,
                                   PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *context);
/* New.  when_object may be NULL. */
TimerHandleObject *TimerHandle_new(LoopObject *loop, double when,
                                   PyObject *when_object, PyObject *callback,
                                   PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *context);
/* Call the callback in its context; its errors go to the exception handler.
   -1 only with an exception that must leave run_forever().  Runs Python. */
int Handle_run(HandleObject *self);
/* Drop callback and arguments: a handle must not keep a cycle alive. */
void Handle_release(HandleObject *self);
/* The loop is done with it.  Nor may its context keep a cycle alive, which
   often leads to whoever holds the handle. */
static inline void
Handle_done(HandleObject *self)
{
    if (!self->stays) {
        Handle_release(self);
        Py_CLEAR(self->context);
    }
}
/* Visit what a handle holds, as a part of the loop where it waits. */
int Handle_visit_as_part(HandleObject *self, visitproc visit, void *arg);
void Handle_free_lists_clear(module_state *state);
/* Report the set exception as that of a Handle for callback(arg), which is
   made only now; arg may be NULL.  -1 only with an exception that must leave
   run_forever().  Runs Python. */
int report_call(LoopObject *loop, PyObject *callback, PyObject *arg,
                PyObject *context);
/* Call callback(arg) in context, as Handle_run() would.  Runs Python. */
int call_in_context(LoopObject *loop, PyObject *callback, PyObject *arg,
                    PyObject *context);
/* New tuple of a handle's arguments. */
PyObject *Handle_args_tuple(PyObject *args, Py_ssize_t nargs);
void Handle_dealloc(HandleObject *self);
void TimerHandle_dealloc(TimerHandleObject *self);
void ThreadSafeHandle_dealloc(ThreadSafeHandleObject *self);

/* handle_type.c -- what Python sees of handles */

int Handle_setup_type(PyObject *module, module_state *state);
int TimerHandle_setup_type(PyObject *module, module_state *state);
int ThreadSafeHandle_setup_type(PyObject *module, module_state *state);

/* ready.c -- the queue of what runs in the next turn */

/* Have the next turn poll, as each of asyncio's does: something was sent or is
   watched from now on, and the other end may be this loop's own; or the loop
   was started, perhaps to stop at once. */
static inline void
Loop_poll_next(LoopObject *self)
{
    self->poll_next = true;
}

/* Make room for one more entry. */
int Ready_grow(ready_queue *self);
/* Drop everything: the loop closes. */
void Ready_clear(ready_queue *self);
int Ready_traverse(ready_queue *self, visitproc visit, void *arg);

/* Append.  Takes its own references to object, arg and context. */
static inline int
Ready_push(ready_queue *self, enum ready_kind kind, PyObject *object,
           PyObject *arg, PyObject *context)
{
    if (self->count == self->capacity && Ready_grow(self) < 0) {
        return -1;
    }
    ready_entry *entry =
        &self->entries[(self->head + self->count) & (self->capacity - 1)];
    entry->object = (uintptr_t)Py_NewRef(object) | (uintptr_t)kind;
    entry->arg = Py_XNewRef(arg);
    entry->context = Py_XNewRef(context);
    self->count++;
    return 0;
}

/* Append a call of our own. */
static inline int
Ready_push_native(ready_queue *self, native_call call, PyObject *object)
{
    if (self->count == self->capacity && Ready_grow(self) < 0) {
        return -1;
    }
    ready_entry *entry =
        &self->entries[(self->head + self->count) & (self->capacity - 1)];
    entry->object = (uintptr_t)Py_NewRef(object) | (uintptr_t)READY_NATIVE;
    entry->arg = (PyObject *)call;
    entry->context = NULL;
    self->count++;
    return 0;
}

/* The same in front of all others. */
int Ready_push_first(ready_queue *self, native_call call, PyObject *object);

/* registry.c -- asyncio's registers of running and current tasks */

int Registry_setup(module_state *state);
/* Make it the loop's current task; it stays that after its step, until the
   next one or Registry_leave().  Runs Python. */
int Registry_enter(LoopObject *self, PyObject *task);
/* Take the last task that ran out of the register of current tasks.  Runs
   Python. */
int Registry_leave(LoopObject *self);
/* The same at once and for any loop, with asyncio's checks and errors. */
int Registry_enter_checked(module_state *state, PyObject *loop,
                           PyObject *task);
int Registry_leave_checked(module_state *state, PyObject *loop,
                           PyObject *task);
/* New: the current task of the loop or None, for which `task` steps in. */
PyObject *Registry_swap(module_state *state, PyObject *loop, PyObject *task);
/* Have asyncio.all_tasks() list a task.  Runs Python in the fallback. */
int Registry_add(module_state *state, TaskObject *task);
/* No longer list it.  Needs no state: it may be gone at shutdown. */
void Registry_remove(TaskObject *task);
/* Edges for asyncio's call graph; nothing before 3.14. */
int Registry_add_awaiter(module_state *state, PyObject *future,
                         PyObject *task);
int Registry_discard_awaiter(module_state *state, PyObject *future,
                             PyObject *task);

/* proof.c -- does the running asyncio match layout.h? */

/* Fill state->stock, or say there why our own types cannot be used.  Runs
   Python. */
int Proof_setup(PyObject *module, module_state *state);
int Proof_traverse(module_state *state, visitproc visit, void *arg);
void Proof_clear(module_state *state);

/* future.c -- Future */

int Future_setup_type(PyObject *module, module_state *state);
/* New pending future of the loop (asyncio.Future where ours cannot be, or
   what a program has put in the place of that).  May run Python. */
PyObject *Future_create(LoopObject *loop);
/* What a program has put in the place of a type of asyncio's, by name in the
   module where asyncio looks for it.  Borrowed; NULL: nothing. */
PyObject *Future_replacement(PyObject *module, PyObject *name,
                             PyTypeObject *stock, PyTypeObject *own);
/* Set a result unless the future is done already.  For any future type. */
int Future_resolve(LoopObject *loop, PyObject *future, PyObject *result);
/* The state of the module, from any Future or Task; NULL: exception. */
module_state *Future_state(PyObject *self);
/* asyncio's own method on one of our objects: for what is rare and differs
   between versions.  New.  Runs Python. */
PyObject *Future_call_stock(module_state *state, PyObject *name,
                            PyObject *self, PyObject *arg);
/* The three ways to be done.  They queue the callbacks; may run Python. */
int Future_finish(FutureObject *self, PyObject *result);
int Future_fail(FutureObject *self, PyObject *exc);
int Future_abort(FutureObject *self, PyObject *message);
/* Add a callback, or queue it if the future is done.  May run Python. */
int Future_add_callback(FutureObject *self, PyObject *callback,
                        PyObject *context);
/* loop.call_soon(callback[, arg], context=context).  Runs Python. */
int call_soon_by_name(module_state *state, PyObject *loop, PyObject *callback,
                      PyObject *arg, PyObject *context);
/* New: the callable that wakes the task, as callbacks are shown to others. */
PyObject *Future_new_wakeup(PyObject *task);
/* What Task has in common with Future. */
int Future_traverse(PyObject *self, visitproc visit, void *arg);
int Future_clear(PyObject *self);
extern PyMethodDef Future_methods[];
#define FUTURE_SHARED_METHODS (&Future_methods[3])
extern PyGetSetDef Future_shared_getset[];

/* The state of the module that made the type; NULL for a subclass and for a
   type that the garbage collector has cleared.  Safe in tp_dealloc. */
static inline module_state *
state_of_exact(PyTypeObject *type)
{
    PyObject *module = ((PyHeapTypeObject *)type)->ht_module;
    if (module == NULL || PyModule_GetDef(module) != &ouroloop_module) {
        return NULL;
    }
    return PyModule_GetState(module);
}

/* future_iter.c -- the iterator behind `await future` */

int FutureIter_setup_type(PyObject *module, module_state *state);
/* tp_iter and am_await of Future and Task: new. */
PyObject *Future_iter(PyObject *self);

/* task_step.c -- Task: step and wake-up */

int TaskStep_setup_type(PyObject *module, module_state *state);
/* One step, in the task's context and with it as the current task.  -1 only
   with an exception that must leave run_forever().  Runs Python. */
int Task_step(PyObject *task, PyObject *exc);
int Task_wakeup(PyObject *task, PyObject *future);
/* A wake-up by a loop's call_soon(): new None, or NULL with any exception. */
PyObject *Task_wakeup_now(PyObject *task, PyObject *future);
/* The first step, inside of whatever runs now.  Runs Python. */
int Task_start(module_state *state, TaskObject *self);
/* Queue a step; exc: what it throws into the coroutine, or NULL. */
int Task_schedule(TaskObject *self, PyObject *exc);

/* task.c -- Task: how it is made, what it answers, how it dies */

int Task_setup_type(PyObject *module, module_state *state);
/* New task, its first step queued.  name and context may be NULL. */
PyObject *Task_create(LoopObject *loop, PyObject *coro, PyObject *name,
                      PyObject *context, bool eager_start);

/* watcher.c -- one uv_poll_t for each descriptor that somebody waits for */

/* The entry of a descriptor, until the table grows; NULL: it has none. */
static inline fd_entry *
Fds_find(LoopObject *self, int fd)
{
    return fd >= 0 && fd < self->fd_count ? &self->fds[fd] : NULL;
}
/* The same, made if need be.  NULL: MemoryError, or RuntimeError of a closed
   loop; where Fds_reserve_open() is asked, which is for numbers of users: also
   OSError. */
fd_entry *Fds_reserve(LoopObject *self, int fd);
fd_entry *Fds_reserve_open(LoopObject *self, int fd);
/* -1 with RuntimeError if the loop is closed. */
int Fds_check_open(LoopObject *self);
/* handle.cancel(), and give the reference up.  Runs Python. */
int cancel_callback(HandleObject *handle);
/* What somebody waits for. */
int Watcher_wanted(fd_watcher *self);
/* Watch a descriptor; for nothing yet.  Its entry has no watcher. */
int Watcher_open(LoopObject *self, fd_entry *entry, int fd);
/* Have uv watch for what is waited for; nothing: close the watcher, perhaps,
   which cannot fail.  Runs Python if it closes. */
int Watcher_update(fd_watcher *self);
/* To be called when nobody waits.  Runs Python. */
void Watcher_close(fd_entry *entry);
/* Have a future made that is done once the descriptor may be ready for the
   event.  Fds_ensure_free() is the caller's affair.  Runs Python. */
int Fds_wait(LoopObject *self, fd_waiter *waiter, int fd);
/* No longer wait.  The future stays.  Runs Python. */
void Fds_end_wait(fd_waiter *waiter);
/* The connection has ended: nobody is going to wait for it again. */
void Fds_let_go(LoopObject *self, int fd);
/* Wake those whose socket was closed; only they can tell.  Runs Python. */
void Fds_check_closed(LoopObject *self);
/* To be called before uv_poll_start() on a descriptor that others may close:
   libuv aborts the process when it is closed before the next poll. */
int Fds_note_armed(LoopObject *self, int fd);
/* To be called before a poll when armed_count > 0: stop watching those, and
   how many were looked at, which is what Fds_after_poll() takes.  Runs
   Python. */
size_t Fds_check_armed(LoopObject *self);
void Fds_after_poll(LoopObject *self, size_t count);
/* uv_poll_init() on a descriptor of the loop's own, perhaps of a number that a
   callback or a transport is left over for.  Returns libuv's error.  Runs
   Python. */
int Fds_poll_init(LoopObject *self, uv_poll_t *uv, int fd);
/* Take the descriptor from libuv and out of the table; it stays open.  The
   caller has a reference to the transport. */
void Fds_release(TransportObject *transport);
/* The uvhandle for a transport on the descriptor, whose entry is there.
   Opening one costs three system calls, so it stays open for the next
   connection of the same number.  Returns libuv's error.  Runs Python. */
int Fds_take_uv(LoopObject *self, int fd, uv_poll_t **uv);
/* Close every watcher and transport that is still open: the loop closes.
   Runs Python. */
void Fds_close(LoopObject *self);
/* Visit transports, waiting calls, and handles that only the watchers hold. */
int Fds_traverse(LoopObject *self, visitproc visit, void *arg);

/* poll.c -- add_reader() and add_writer() */

/* The descriptor that a number or an object stands for, as selectors finds it;
   INT_MAX if it is larger.  -1 with an exception.  Runs Python. */
int Fds_number(LoopObject *self, PyObject *file);
/* RuntimeError if a transport uses it.  Takes what has fileno().  Runs
   Python. */
int Fds_ensure_free(LoopObject *self, PyObject *file);
PyObject *Loop__add_reader(LoopObject *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop__add_writer(LoopObject *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop__remove_reader(LoopObject *self, PyObject *file);
PyObject *Loop__remove_writer(LoopObject *self, PyObject *file);
PyObject *Loop__ensure_fd_no_transport(LoopObject *self, PyObject *file);
PyObject *Loop__watched(LoopObject *self, PyObject *file);

/* timers.c -- call_later() and call_at() */

int Timers_push(LoopObject *self, TimerHandleObject *timer);
/* Move the timers that are due to the ready queue.  Runs Python only if the
   loop has a clock of its own. */
int Timers_push_due(LoopObject *self);
/* Drop cancelled timers: the first ones, or all when they are the most. */
int Timers_drop_cancelled(LoopObject *self);
/* Have a blocking poll end at the earliest deadline. */
int Timers_arm(LoopObject *self);
/* Close the uvhandle; it may be opened again. */
void Timers_close(LoopObject *self);
void Timers_clear(LoopObject *self);
int Timers_traverse(timer_heap *self, visitproc visit, void *arg);
/* Seconds on the loop's clock; -1.0 with an exception set on failure. */
double Loop_now(LoopObject *self);

#include "transport.h"

/* dns.c -- name lookups in threads */

/* Close what Loop__lookup_*() have opened; lookups that run are left alone. */
void Dns_close(LoopObject *self);
int Dns_traverse(LoopObject *self, visitproc visit, void *arg);
PyObject *Loop__lookup_addresses(LoopObject *self, PyObject *const *args,
                                 Py_ssize_t nargs);
PyObject *Loop__lookup_name(LoopObject *self, PyObject *const *args,
                            Py_ssize_t nargs);

/* signals.c -- wake-ups by signals, KeyboardInterrupt among them */

/* Write end of the loop's wakeup pipe, opened on first use; -1: exception. */
int Signals_fd(LoopObject *self);
/* Have signals wake this loop, if it runs in the main thread. */
int Signals_attach(LoopObject *self);
/* Give signal.set_wakeup_fd() back to whom it belonged. */
int Signals_detach(LoopObject *self);
void Signals_close(LoopObject *self);

/* fork.c -- what a child does to the loops that it inherits */

/* Keep the list of open loops. */
void Fork_track(LoopObject *self);
void Fork_untrack(LoopObject *self);
void Fork_refuse(void);
/* -1 with RuntimeError if the loop belongs to the parent process. */
static inline int
Fork_check(LoopObject *self)
{
    if (self->inherited) {
        Fork_refuse();
        return -1;
    }
    return 0;
}
int Fork_setup(PyObject *module);

/* run.c -- one turn of the loop: GIL, poll, timers, ready batch */

int Run_init(LoopObject *self);
/* Turn after turn until stop().  Runs Python. */
int Loop_run(LoopObject *self);
/* One turn for whoever turns the loop in a way of his own, perhaps within a
   callback or a task's step, which goes on afterwards as if nothing were.  -1
   with any exception.  Runs Python. */
int Loop_turn(LoopObject *self);
/* Close every uvhandle and the uv loop.  Runs Python. */
int Loop_close_uv(LoopObject *self);
/* End a wait in the kernel.  From any thread, with the GIL held. */
static inline void
Loop_wake(LoopObject *self)
{
    if (self->parked != NULL && !self->wake_sent) {
        self->wake_sent = true;
        uv_async_send(&self->wake);
    }
}

/* loop.c -- the Loop type */

int Loop_setup_type(PyObject *module, module_state *state);
int Loop_setattro(PyObject *self, PyObject *name, PyObject *value);

/* Is it one of ours?  Subclasses inherit the slot, so one load tells; a
   subclass that has its own __setattr__ is treated as a foreign loop. */
static inline bool
Loop_check(PyObject *object)
{
    return Py_TYPE(object)->tp_setattro == Loop_setattro;
}

/* May futures and tasks of this loop go straight to its ready queue?
   Debug mode wants a Handle for each callback, as asyncio has. */
static inline bool
Loop_is_direct(LoopObject *self)
{
    return !(self->custom_call_soon | self->debug | self->closed);
}

#endif

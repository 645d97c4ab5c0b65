/* Names to addresses and back, by libc in threads that know nothing of Python.

   Not in libuv's pool: its four threads are shared by all that use libuv in
   the process, and a loop cannot be closed before what it has there is done,
   which may take a dead name server's half minute.  Here each lookup has a
   thread, up to MAX_THREADS, that ends when there is nothing to do for a
   while; what a loop does not wait for any more is freed by its thread. */
#include "ouroloop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>

enum {
    MAX_THREADS = 32, /* as many as asyncio's executor at most */
    IDLE_SECONDS = 1
};

struct lookup {
    struct lookup *next; /* of the loop's */
    struct lookup *next_queued;
    LoopObject *loop; /* NULL: nobody waits for it any more */
    PyObject *future;
    enum { QUEUED, RUNNING, DONE } progress;
    unsigned forks; /* of the process before it */
    bool to_name;
    int error, system_error; /* EAI_*, errno for EAI_SYSTEM */
    /* Addresses of a name. */
    const char *host, *service; /* in `text`, or NULL */
    struct addrinfo hints, *found;
    /* The name of an address. */
    inet_address address;
    socklen_t address_size;
    int flags;
    char name[NI_MAXHOST], service_name[NI_MAXSERV];
    char text[];
};

/* What all loops of the process share, under the lock.  It guards `loop`,
   `progress` and `next_queued` of each lookup, too. */
static struct {
    pthread_mutex_t lock;
    pthread_once_t prepared;
    struct lookup *first, *last;
    int queued;
    pthread_cond_t more; /* something was queued */
    int threads, idle;
    unsigned forks;
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .more = PTHREAD_COND_INITIALIZER,
    .prepared = PTHREAD_ONCE_INIT,
};

static void
lock_pool(void)
{
    pthread_mutex_lock(&pool.lock);
}

static void
unlock_pool(void)
{
    pthread_mutex_unlock(&pool.lock);
}

/* No thread is there any more, and nobody waits for what they did. */
static void
reset_pool(void)
{
    pool.first = pool.last = NULL;
    pool.more = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    pool.queued = pool.threads = pool.idle = 0;
    pool.forks++;
    unlock_pool();
}

static void
prepare_pool(void)
{
    (void)pthread_atfork(lock_pool, unlock_pool, reset_pool);
}

/* Lookups. */

static struct lookup *
new_lookup(size_t text_size)
{
    struct lookup *self = PyMem_RawCalloc(1, sizeof(*self) + text_size);

    if (self == NULL) {
        PyErr_NoMemory();
    }
    return self;
}

/* From any thread; the future is gone. */
static void
free_lookup(struct lookup *self)
{
    if (self->found != NULL) {
        freeaddrinfo(self->found);
    }
    PyMem_RawFree(self);
}

/* Ask libc.  From any thread. */
static void
perform(struct lookup *self)
{
    if (self->to_name) {
        self->error =
            getnameinfo(&self->address.any, self->address_size, self->name,
                        sizeof(self->name), self->service_name,
                        sizeof(self->service_name), self->flags);
    }
    else {
        self->error =
            getaddrinfo(self->host, self->service, &self->hints, &self->found);
        if (self->error != 0) {
            self->found = NULL;
        }
    }
    self->system_error = errno;
}

/* Threads. */

/* With the lock held: is there something to do before it is time to end? */
static bool
wait_for_more(void)
{
    struct timespec end;
    int err = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += IDLE_SECONDS;
    pool.idle++;
    while (pool.first == NULL && err == 0) {
        err = pthread_cond_timedwait(&pool.more, &pool.lock, &end);
    }
    pool.idle--;
    return pool.first != NULL;
}

static void
run_thread(void *Py_UNUSED(arg))
{
    lock_pool();
    while (wait_for_more()) {
        struct lookup *lookup = pool.first;
        pool.first = lookup->next_queued;
        pool.queued--;
        lookup->progress = RUNNING;
        unlock_pool();
        perform(lookup);
        lock_pool();
        lookup->progress = DONE;
        if (lookup->loop != NULL) {
            /* Under the lock, so that the loop cannot close meanwhile. */
            uv_async_send(&lookup->loop->lookups_done);
        }
        else {
            free_lookup(lookup);
        }
    }
    pool.threads--;
    unlock_pool();
}

/* One more, detached, and with all signals blocked: they are for Python's
   threads.  Returns libuv's error. */
static int
start_thread(void)
{
    sigset_t all, before;
    uv_thread_t thread;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = uv_thread_create(&thread, run_thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0) {
        pthread_detach(thread);
    }
    return err;
}

/* With the lock held. */
static void
unqueue(struct lookup *lookup)
{
    struct lookup *before = NULL;

    for (struct lookup *at = pool.first; at != NULL; at = at->next_queued) {
        if (at != lookup) {
            before = at;
            continue;
        }
        if (before == NULL) {
            pool.first = at->next_queued;
        }
        else {
            before->next_queued = at->next_queued;
        }
        if (pool.last == at) {
            pool.last = before;
        }
        pool.queued--;
        return;
    }
}

/* Have a thread perform it.  -1 with an exception. */
static int
queue_lookup(struct lookup *lookup)
{
    int err = 0;

    pthread_once(&pool.prepared, prepare_pool);
    lock_pool();
    lookup->forks = pool.forks;
    if (pool.first == NULL) {
        pool.first = lookup;
    }
    else {
        pool.last->next_queued = lookup;
    }
    pool.last = lookup;
    pool.queued++;
    if (pool.queued <= pool.idle) {
        pthread_cond_signal(&pool.more);
    }
    else if (pool.threads < MAX_THREADS) {
        err = start_thread();
        pool.threads += err == 0;
        if (err != 0 && pool.threads == 0) {
            unqueue(lookup);
        }
        else {
            err = 0;  // One that runs will come to it.
        }
    }
    unlock_pool();
    if (err != 0) {
        /* As Python's own threads fail. */
        PyErr_SetString(PyExc_RuntimeError, "can't start new thread");
        return -1;
    }
    return 0;
}

/* Answers. */

static PyObject *
as_enum(PyObject *type, int value)
{
    PyObject *member = PyObject_CallFunction(type, "i", value);

    if (member == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        member = PyLong_FromLong(value);
    }
    return member;
}

/* As one of socket.getaddrinfo(). */
static PyObject *
show_found(module_state *state, const struct addrinfo *found)
{
    PyObject *address = Address_object(found->ai_addr, found->ai_addrlen);

    if (address == NULL && !PyErr_Occurred()) {
        /* As the socket module shows a family that it does not know. */
        address = Py_BuildValue("(iy#)", (int)found->ai_addr->sa_family,
                                found->ai_addr->sa_data,
                                (Py_ssize_t)sizeof(found->ai_addr->sa_data));
    }
    if (address == NULL) {
        return NULL;
    }
    return Py_BuildValue(
        "(NNisN)", as_enum(state->AddressFamily, found->ai_family),
        as_enum(state->SocketKind, found->ai_socktype), found->ai_protocol,
        found->ai_canonname == NULL ? "" : found->ai_canonname, address);
}

/* What socket.getaddrinfo() or socket.getnameinfo() returns or raises. */
static PyObject *
answer(module_state *state, const struct lookup *lookup)
{
    if (lookup->error == EAI_SYSTEM) {
        errno = lookup->system_error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (lookup->error != 0) {
        PyObject *args =
            Py_BuildValue("(is)", lookup->error, gai_strerror(lookup->error));
        if (args != NULL) {
            PyErr_SetObject(state->gaierror, args);
            Py_DECREF(args);
        }
        return NULL;
    }
    if (lookup->to_name) {
        return Py_BuildValue("(Ns)", PyUnicode_DecodeFSDefault(lookup->name),
                             lookup->service_name);
    }
    PyObject *list = PyList_New(0);
    const struct addrinfo *found = lookup->found;
    for (; list != NULL && found != NULL; found = found->ai_next) {
        PyObject *item = show_found(state, found);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

/* Give the answer to who waits for it.  -1 with an exception.  Runs Python. */
static int
deliver(LoopObject *loop, PyObject *future, const struct lookup *lookup)
{
    PyObject *value = answer(loop->state, lookup);
    int result;

    if (value != NULL) {
        result = Future_resolve(loop, future, value);
        Py_DECREF(value);
        return result;
    }
    PyObject *exc = PyErr_GetRaisedException();
    result = Transport_fail_waiter(future, exc);
    Py_DECREF(exc);
    return result;
}

/* Take one that is done out of the loop's list; NULL: none is. */
static struct lookup *
take_done(LoopObject *loop)
{
    struct lookup *found = NULL;

    lock_pool();
    for (struct lookup **at = &loop->lookups; *at != NULL; at = &(*at)->next) {
        if ((*at)->progress == DONE) {
            found = *at;
            *at = found->next;
            break;
        }
    }
    unlock_pool();
    return found;
}

static void
on_lookups_done(uv_async_t *uv)
{
    LoopObject *loop = CONTAINER_OF(uv, LoopObject, lookups_done);
    struct lookup *lookup;

    Loop_enter(loop);
    while ((lookup = take_done(loop)) != NULL) {
        PyObject *future = lookup->future;
        if (deliver(loop, future, lookup) < 0) {
            Loop_report(loop, "Cannot hand on the answer to a name lookup",
                        "future", future);
        }
        Py_DECREF(future);
        free_lookup(lookup);
    }
}

/* Asking. */

/* The future of the answer.  Takes the lookup, also on failure.  New. */
static PyObject *
start(LoopObject *loop, struct lookup *lookup, bool at_once)
{
    PyObject *future = Future_create(loop), *value = NULL;

    /* An audit hook may have closed the loop. */
    if (future == NULL || Fds_check_open(loop) < 0) {
        goto error;
    }
    if (at_once) {
        perform(lookup);
        value = answer(loop->state, lookup);
        if (value == NULL) {
            goto error;
        }
        /* In the next turn: who asks lets others run, as on asyncio. */
        PyObject *args[] = {future, value};
        HandleObject *handle = Handle_new(
            loop, loop->state->_set_result_unless_cancelled, args, 2, NULL);
        Py_DECREF(value);
        int pushed = handle == NULL
            ? -1
            : Ready_push(&loop->ready, READY_HANDLE, (PyObject *)handle, NULL,
                         NULL);
        Py_XDECREF(handle);
        if (pushed < 0) {
            goto error;
        }
        free_lookup(lookup);
        return future;
    }
    if (!loop->resolver_open) {
        int err =
            uv_async_init(&loop->uv, &loop->lookups_done, on_lookups_done);
        if (err < 0) {
            raise_uv(err);
            goto error;
        }
        /* How _open_handles() knows the loop's own. */
        loop->lookups_done.data = loop;
        loop->resolver_open = true;
    }
    lookup->loop = loop;
    lookup->future = future;
    if (queue_lookup(lookup) < 0) {
        goto error;
    }
    lookup->next = loop->lookups;
    loop->lookups = lookup;
    return Py_NewRef(future);
error:
    Py_XDECREF(future);
    free_lookup(lookup);
    return NULL;
}

/* Arguments: those that need no thought.  All others, and all that are wrong,
   are left to the socket module. */

/* An int of that range, also of an enum; false without an exception. */
static bool
as_int(PyObject *object, int least, int most, int *value)
{
    int overflow;

    if (!PyLong_Check(object)) {
        return false;
    }
    long number = PyLong_AsLongAndOverflow(object, &overflow);
    *value = (int)number;
    return overflow == 0 && number >= least && number <= most;
}

/* The characters of an ASCII str or of bytes, without a NUL among them; NULL
   without an exception for all else. */
static const char *
as_text(PyObject *object, size_t *size)
{
    const char *text = NULL;

    if (PyBytes_CheckExact(object)) {
        text = PyBytes_AS_STRING(object);
        *size = (size_t)PyBytes_GET_SIZE(object);
    }
    else if (PyUnicode_CheckExact(object) && PyUnicode_IS_ASCII(object)) {
        text = (const char *)PyUnicode_1BYTE_DATA(object);
        *size = (size_t)PyUnicode_GET_LENGTH(object);
    }
    return text != NULL && strlen(text) == *size ? text : NULL;
}

/* Does the IDNA codec, which asyncio sends each host through, leave it as it
   is? */
static bool
is_plain_host(const char *host)
{
    enum { LABEL_MAX = 63 };
    size_t length;

    if (*host == '\0') {
        return false;
    }
    for (;; host += length + 1) {
        length = strcspn(host, ".");
        if (length > LABEL_MAX) {
            return false;
        }
        if (host[length] == '\0') {
            return true;
        }
        if (length == 0) {
            return false;
        }
    }
}

static bool
is_numeric_host(const char *host)
{
    unsigned char address[16];

    return inet_pton(AF_INET, host, address) == 1 ||
        inet_pton(AF_INET6, host, address) == 1;
}

/* (host, port, family, type, proto, flags): the future of the answer, or None
   for what only the socket module understands. */
PyObject *
Loop__lookup_addresses(LoopObject *self, PyObject *const *args,
                       Py_ssize_t nargs)
{
    struct addrinfo hints = {0};
    const char *host = NULL, *service = NULL;
    size_t host_size = 0, service_size = 0;
    int *numbers[] = {&hints.ai_family, &hints.ai_socktype, &hints.ai_protocol,
                      &hints.ai_flags};
    char digits[16];

    if (self->closed) {
        Py_RETURN_NONE;
    }
    if (nargs != 6) {
        PyErr_Format(PyExc_TypeError,
                     "_lookup_addresses() takes 6 arguments (%zd given)",
                     nargs);
        return NULL;
    }
    for (int i = 0; i < 4; i++) {
        if (!as_int(args[2 + i], INT_MIN, INT_MAX, numbers[i])) {
            Py_RETURN_NONE;
        }
    }
    if (args[0] != Py_None) {
        host = as_text(args[0], &host_size);
        if (host == NULL ||
            (PyUnicode_Check(args[0]) && !is_plain_host(host))) {
            Py_RETURN_NONE;
        }
    }
    if (args[1] != Py_None) {
        int port;
        if (PyLong_CheckExact(args[1]) && as_int(args[1], 0, INT_MAX, &port)) {
            service_size =
                (size_t)snprintf(digits, sizeof(digits), "%d", port);
            service = digits;
        }
        else {
            service = as_text(args[1], &service_size);
        }
        if (service == NULL) {
            Py_RETURN_NONE;
        }
    }
#ifdef AI_NUMERICSERV
    if (hints.ai_flags & AI_NUMERICSERV) {
        /* The socket module corrects it on some systems. */
        Py_RETURN_NONE;
    }
#endif
    if (PySys_Audit("socket.getaddrinfo", "OOiii", args[0], args[1],
                    hints.ai_family, hints.ai_socktype,
                    hints.ai_protocol) < 0) {
        return NULL;
    }
    struct lookup *lookup = new_lookup(host_size + service_size + 2);
    if (lookup == NULL) {
        return NULL;
    }
    lookup->hints = hints;
    if (host != NULL) {
        lookup->host = memcpy(lookup->text, host, host_size);
    }
    if (service != NULL) {
        lookup->service =
            memcpy(lookup->text + host_size + 1, service, service_size);
    }
    /* What needs neither a name server nor a file. */
    bool at_once = (host == NULL || is_numeric_host(host)) &&
        (service == NULL || strspn(service, "0123456789") == service_size);
    return start(self, lookup, at_once);
}

/* (sockaddr, flags): as _lookup_addresses(). */
PyObject *
Loop__lookup_name(LoopObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    inet_address address = {0};
    int flags, port, flow = 0, scope = 0;
    size_t size;

    if (self->closed) {
        Py_RETURN_NONE;
    }
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError,
                     "_lookup_name() takes 2 arguments (%zd given)", nargs);
        return NULL;
    }
    PyObject *sockaddr = args[0];
    Py_ssize_t count =
        PyTuple_CheckExact(sockaddr) ? PyTuple_GET_SIZE(sockaddr) : 0;
    if (count < 2 || count > 4 || !as_int(args[1], INT_MIN, INT_MAX, &flags) ||
        !PyUnicode_Check(PyTuple_GET_ITEM(sockaddr, 0)) ||
        !as_int(PyTuple_GET_ITEM(sockaddr, 1), 0, 0xffff, &port) ||
        (count > 2 &&
         !as_int(PyTuple_GET_ITEM(sockaddr, 2), 0, 0xfffff, &flow)) ||
        (count > 3 &&
         !as_int(PyTuple_GET_ITEM(sockaddr, 3), 0, INT_MAX, &scope))) {
        Py_RETURN_NONE;
    }
    const char *host = as_text(PyTuple_GET_ITEM(sockaddr, 0), &size);
    if (host == NULL) {
        Py_RETURN_NONE;
    }
    socklen_t address_size;
    if (count == 2 && inet_pton(AF_INET, host, &address.inet.sin_addr) == 1) {
        address.inet.sin_family = AF_INET;
        address.inet.sin_port = htons((uint16_t)port);
        address_size = sizeof(address.inet);
    }
    else if (inet_pton(AF_INET6, host, &address.inet6.sin6_addr) == 1) {
        address.inet6.sin6_family = AF_INET6;
        address.inet6.sin6_port = htons((uint16_t)port);
        address.inet6.sin6_flowinfo = htonl((uint32_t)flow);
        address.inet6.sin6_scope_id = (uint32_t)scope;
        address_size = sizeof(address.inet6);
    }
    else {
        Py_RETURN_NONE;
    }
    if (PySys_Audit("socket.getnameinfo", "(O)", sockaddr) < 0) {
        return NULL;
    }
    struct lookup *lookup = new_lookup(0);
    if (lookup == NULL) {
        return NULL;
    }
    lookup->to_name = true;
    lookup->address = address;
    lookup->address_size = address_size;
    lookup->flags = flags;
    bool at_once = (flags & NI_NUMERICHOST) && (flags & NI_NUMERICSERV);
    return start(self, lookup, at_once);
}

/* The end. */

void
Dns_close(LoopObject *self)
{
    if (!self->resolver_open) {
        return;
    }
    while (self->lookups != NULL) {
        struct lookup *lookup = self->lookups;
        PyObject *future = lookup->future;
        self->lookups = lookup->next;
        lock_pool();
        /* In the child of a fork it has no thread. */
        bool runs = lookup->progress == RUNNING && lookup->forks == pool.forks;
        if (lookup->progress == QUEUED) {
            unqueue(lookup);
        }
        lookup->loop = NULL;
        unlock_pool();
        if (!runs) {
            free_lookup(lookup);
        }
        Py_DECREF(future);
    }
    self->resolver_open = false;
    uv_close((uv_handle_t *)&self->lookups_done, NULL);
}

int
Dns_traverse(LoopObject *self, visitproc visit, void *arg)
{
    for (struct lookup *at = self->lookups; at != NULL; at = at->next) {
        Py_VISIT(at->future);
    }
    return 0;
}

/* Every CPython and libuv version difference lives here, one #if per feature,
   and nowhere else (layout.h has the structs that differ). */
#ifndef OUROLOOP_COMPAT_H
#define OUROLOOP_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif
#include <sys/socket.h>
#include <uv.h>

/* 3.11 made PyType_GetModuleByDef() public.  Drop with 3.10. */
#if PY_VERSION_HEX < 0x030B0000
#define PyType_GetModuleByDef _PyType_GetModuleByDef
#endif

/* 3.12 lets a module say that it works in interpreters with their own GIL.
   Drop with 3.11. */
#if PY_VERSION_HEX >= 0x030C0000
#define COMPAT_MULTIPLE_INTERPRETERS \
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#define COMPAT_MULTIPLE_INTERPRETERS
#endif

/* 3.12 keeps the exception in flight as one object.  Drop with 3.11. */
#if PY_VERSION_HEX < 0x030C0000
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
}

static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}
#endif

/* 3.13 added the lookup that tells "absent" from "failed".
   Drop with 3.12. */
#if PY_VERSION_HEX < 0x030D0000
static inline int
PyObject_GetOptionalAttr(PyObject *object, PyObject *name, PyObject **result)
{
    return _PyObject_LookupAttr(object, name, result);
}
#endif

/* 3.13 gives a weak reference's object as a reference.  New; NULL if it is
   gone.  Drop with 3.12. */
static inline PyObject *
compat_weakref_get(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *object;
    return PyWeakref_GetRef(reference, &object) > 0 ? object : NULL;
#else
    PyObject *object = PyWeakref_GetObject(reference);
    return object == Py_None ? NULL : Py_XNewRef(object);
#endif
}

/* A number that a class has until it, or a base of it, is changed; 0: none
   now.  Until 3.12 it stays behind when it is no longer valid. */
static inline unsigned int
compat_type_tag(PyTypeObject *type)
{
#if PY_VERSION_HEX < 0x030D0000
    if (!(type->tp_flags & Py_TPFLAGS_VALID_VERSION_TAG)) {
        return 0;
    }
#endif
    return type->tp_version_tag;
}

/* How a Python function is called can be replaced, but 3.11 takes no notice of
   it.  A result that is awaited at once is one that no other code can see:
   whether that is so stands in the frame of whoever calls, the layout of whose
   start has not changed since 3.12. */
#define COMPAT_FUNCTIONS_CAN_BE_CALLED_OTHERWISE \
    (PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030C0000)

/* Where methods of asyncio's are not replaced, their objects had better not be
   given real dicts: Python code is slower with them.  Has the object an
   attribute in the place of its method?  Asked on 3.11 only. */
#define COMPAT_LEAVE_DICTS_ALONE (!COMPAT_FUNCTIONS_CAN_BE_CALLED_OTHERWISE)

static inline bool
compat_is_shadowed(PyObject *object, PyObject *name)
{
#if COMPAT_LEAVE_DICTS_ALONE
    PyObject *method = NULL;
    bool unbound = _PyObject_GetMethod(object, name, &method);

    Py_XDECREF(method);
    PyErr_Clear();
    return !unbound;
#else
    return object != NULL || name != NULL;
#endif
}

static inline void
compat_set_vectorcall(PyObject *function, vectorcallfunc call)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyFunction_SetVectorcall((PyFunctionObject *)function, call);
#else
    ((PyFunctionObject *)function)->vectorcall = call;
#endif
}

/* Is the instruction after the one that runs now `get_awaitable`, in code that
   nobody traces? */
static inline bool
compat_is_awaited_now(unsigned char get_awaitable)
{
    PyThreadState *thread = PyThreadState_Get();
#if PY_VERSION_HEX >= 0x030C0000
    /* In bytes: of the call with its cache, of any instruction without. */
    enum { CALL_SIZE = 8, INSTRUCTION_SIZE = 2 };
    typedef struct {
        uintptr_t code; /* tagged since 3.14 */
        void *previous, *function, *globals, *builtins, *locals, *object;
        const unsigned char *instruction;
    } frame_start;
#if PY_VERSION_HEX >= 0x030D0000
    frame_start *frame = (frame_start *)thread->current_frame;
#else
    frame_start *frame = (frame_start *)thread->cframe->current_frame;
#endif
    if (frame == NULL) {
        return false;
    }
    PyCodeObject *code = (PyCodeObject *)(frame->code & ~(uintptr_t)3);
    if (code == NULL || !PyCode_Check(code) || code->_co_monitoring != NULL) {
        return false;
    }
    const unsigned char *next = frame->instruction + CALL_SIZE;
    const unsigned char *start = (const unsigned char *)code->co_code_adaptive;
    return next >= start && next < start + Py_SIZE(code) * INSTRUCTION_SIZE &&
        *next == get_awaitable;
#elif PY_VERSION_HEX < 0x030B0000
    PyFrameObject *frame = thread->frame;
    if (frame == NULL || thread->cframe->use_tracing) {
        return false;
    }
    Py_ssize_t next = ((Py_ssize_t)frame->f_lasti + 1) * 2;
    PyObject *code = frame->f_code->co_code;
    return next > 0 && next < PyBytes_GET_SIZE(code) &&
        (unsigned char)PyBytes_AS_STRING(code)[next] == get_awaitable;
#else
    return thread == NULL && get_awaitable == 0;
#endif
}

/* create_task() takes a context since 3.11, and anything since 3.14. */
#define COMPAT_TASK_CONTEXT (PY_VERSION_HEX >= 0x030B0000)
#if PY_VERSION_HEX >= 0x030E0000
#define COMPAT_CREATE_TASK_ARGUMENTS "**kwargs"
#elif PY_VERSION_HEX >= 0x030B0000
#define COMPAT_CREATE_TASK_ARGUMENTS "*, name=None, context=None"
#else
#define COMPAT_CREATE_TASK_ARGUMENTS "*, name=None"
#endif

/* Until 3.11 a cancelled future keeps its error as three fields. */
#define COMPAT_ERROR_IN_PARTS (PY_VERSION_HEX < 0x030B0000)

/* Heap types of the standard library visit their type since 3.12, and it has
   no static ones that are subclassed here.  Drop with 3.11. */
#define COMPAT_STATIC_ASYNCIO_TYPES (PY_VERSION_HEX < 0x030C0000)

/* 3.12 added eager tasks.  Drop with 3.11. */
#define COMPAT_EAGER_START (PY_VERSION_HEX >= 0x030C0000)

/* 3.13 keeps a task's default name as a number until somebody asks, and dict
   and weak references of an object before its head.  Drop with 3.12. */
#define COMPAT_LAZY_NAMES (PY_VERSION_HEX >= 0x030D0000)
#define COMPAT_MANAGED_DICT (PY_VERSION_HEX >= 0x030D0000)
#if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x030E0000
PyAPI_FUNC(int) _PyDict_SetItem_KnownHash(PyObject *mp, PyObject *key,
                                          PyObject *item, Py_hash_t hash);
#endif

/* 3.14 moved the registers of tasks from module-wide sets and dicts to the
   thread state, keeps edges between awaited and awaiting, renamed a method in
   an error message, and its iterator of a future no longer drops the future
   when it ends.  Drop with 3.13. */
#define COMPAT_TASKS_IN_THREAD (PY_VERSION_HEX >= 0x030E0000)
#define COMPAT_AWAITED_BY (PY_VERSION_HEX >= 0x030E0000)
#define COMPAT_ENDED_ITERATOR_LETS_GO (PY_VERSION_HEX < 0x030E0000)
#if PY_VERSION_HEX >= 0x030C0000
#define COMPAT_ALL_TASKS "_scheduled_tasks"
#else
#define COMPAT_ALL_TASKS "_all_tasks"
#endif
#define COMPAT_STEP_NAME (PY_VERSION_HEX < 0x030E0000 ? "_step" : "__step")

/* 3.15 takes nothing but a Context for Task(context=). */
#define COMPAT_CONTEXT_CHECKED (PY_VERSION_HEX >= 0x030F0000)

/* 3.11 made call_later() and call_at() refuse None.  Drop with 3.10. */
#define COMPAT_CALL_LATER_REFUSES_NONE (PY_VERSION_HEX >= 0x030B0000)

/* The entered context; a borrowed reference, NULL for none.  CPython has no
   function for it, but the field has been there since 3.7. */
static inline PyObject *
compat_current_context(void)
{
    return PyThreadState_Get()->context;
}

/* 3.12 gave transports a writelines() that does not join.  Drop with 3.11. */
#define COMPAT_WRITELINES_JOINS (PY_VERSION_HEX < 0x030C0000)

/* 3.14's writelines() leaves out what is empty, of whatever type, and looks at
   nothing once the connection is lost.  Drop with 3.13. */
#define COMPAT_WRITELINES_SKIPS (PY_VERSION_HEX >= 0x030E0000)

/* Until 3.11 what the kernel does not take waits in a bytearray.  Drop with
   3.11. */
#define COMPAT_UNSENT_IS_BYTEARRAY (PY_VERSION_HEX < 0x030C0000)

/* 3.14 says precisely what write() takes.  Drop with 3.13. */
#if PY_VERSION_HEX >= 0x030E0000
#define COMPAT_WRITABLE "bytes, bytearray, or memoryview object"
#else
#define COMPAT_WRITABLE "bytes-like object"
#endif

/* 3.13 sends empty datagrams, and counts a header for each one that waits.
   Drop with 3.12. */
#define COMPAT_EMPTY_DATAGRAM_DROPPED (PY_VERSION_HEX < 0x030D0000)
#define COMPAT_DATAGRAM_HEADER (PY_VERSION_HEX < 0x030D0000 ? 0u : 8u)

/* Linux takes several datagrams with one system call; elsewhere it is one.
   As recvmsg(): -1 with errno. */
#ifdef __linux__
typedef struct mmsghdr compat_message;
static inline int
compat_recvmmsg(int fd, compat_message *messages, int count)
{
    /* Someone may have made the socket a blocking one. */
    return recvmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT, NULL);
}
#else
typedef struct {
    struct msghdr msg_hdr;
    size_t msg_len;
} compat_message;
static inline int
compat_recvmmsg(int fd, compat_message *messages, int count)
{
    (void)count;
    ssize_t size = recvmsg(fd, &messages->msg_hdr, 0);
    messages->msg_len = size < 0 ? 0 : (size_t)size;
    return size < 0 ? -1 : 1;
}
#endif

/* A socket option takes the flag's place on macOS; Python ignores SIGPIPE
   everywhere unless told otherwise. */
#ifdef MSG_NOSIGNAL
#define COMPAT_MSG_NOSIGNAL MSG_NOSIGNAL
#else
#define COMPAT_MSG_NOSIGNAL 0
#endif

/* accept(), with a descriptor that is not blocking and not inherited. */
static inline int
compat_accept(int listener, struct sockaddr *peer, socklen_t *size)
{
#ifdef SOCK_NONBLOCK
    return accept4(listener, peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int fd = accept(listener, peer, size);
    if (fd >= 0) {
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd;
#endif
}

/* Is that what the weak reference refers to, or None if that is gone?  3.13
   has a function that is safe without the GIL, and deprecates the old one.
   Drop with 3.12. */
static inline bool
compat_refers_to(PyObject *weakref, PyObject *object)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found;
    if (PyWeakref_GetRef(weakref, &found) <= 0) {
        return object == Py_None;
    }
    Py_DECREF(found);
#else
    PyObject *found = PyWeakref_GET_OBJECT(weakref);
#endif
    return found == object;
}

/* Have what libuv has registered for reporting states report only changes.
   libuv has no notion of that and need not know: its own bookkeeping stays
   true.  False: states it is. */
#ifdef __linux__
#define COMPAT_REPORTS_CHANGES true
static inline bool
compat_report_changes(uv_loop_t *loop, int fd, int events)
{
    struct epoll_event event = {
        .events = (uint32_t)EPOLLET |
            (uint32_t)(events & UV_READABLE ? EPOLLIN : 0) |
            (uint32_t)(events & UV_WRITABLE ? EPOLLOUT : 0),
        .data.fd = fd,
    };
    return epoll_ctl(uv_backend_fd(loop), EPOLL_CTL_MOD, fd, &event) == 0;
}
#else
#define COMPAT_REPORTS_CHANGES false
static inline bool
compat_report_changes(uv_loop_t *loop, int fd, int events)
{
    (void)loop, (void)fd, (void)events;
    return false;
}
#endif

/* 3.14: the handle of call_soon_threadsafe() is safe to cancel from another
   thread, which waits while the callback runs.  Drop with 3.13. */
#define COMPAT_THREAD_SAFE_HANDLE (PY_VERSION_HEX >= 0x030E0000)

/* Linux ends a wait to the nanosecond.  (-DCOMPAT_TIMERFD=0 tries the other
   way there.) */
#ifndef COMPAT_TIMERFD
#ifdef __linux__
#define COMPAT_TIMERFD 1
#else
#define COMPAT_TIMERFD 0
#endif
#endif

/* libuv has its version as a string at run time only. */
#define COMPAT_QUOTE_(number) #number
#define COMPAT_QUOTE(number) COMPAT_QUOTE_(number)
#define COMPAT_LIBUV_VERSION        \
    COMPAT_QUOTE(UV_VERSION_MAJOR)  \
    "." COMPAT_QUOTE(UV_VERSION_MINOR) "." COMPAT_QUOTE(UV_VERSION_PATCH)

/* intrcheck.h became internal in 3.13; the symbol is still exported. */
#if PY_VERSION_HEX >= 0x030D0000
PyAPI_FUNC(int) _PyOS_IsMainThread(void);
#endif

#endif

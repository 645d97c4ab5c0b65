/* Does the running asyncio match layout.h?

   Runs once when the module is imported.  Fields of asyncio's own objects are
   set through their public methods and then looked for in memory; only if
   each one is where layout.h says do our types use that memory.  Otherwise
   the loop uses asyncio's types: slower, and right.

   Since 3.14 the registers of tasks are in the thread state, at offsets that
   no header gives away; they are found by looking for what was put there. */
#include "ouroloop.h"

/* A loop and whatever else asyncio's objects want to see around them. */
typedef struct {
    PyObject_HEAD
    PyObject *callback; /* what the last call_soon() was to call */
    bool debug;
} ProbeObject;

static PyObject *
Probe_get_debug(ProbeObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->debug);
}

static PyObject *
Probe_call_soon(ProbeObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *Py_UNUSED(kwnames))
{
    if (nargs > 0) {
        Py_XSETREF(self->callback, Py_NewRef(args[0]));
    }
    Py_RETURN_NONE;
}

static PyObject *
Probe_call_exception_handler(PyObject *Py_UNUSED(self),
                             PyObject *Py_UNUSED(context))
{
    Py_RETURN_NONE;
}

static void
Probe_dealloc(ProbeObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->callback);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef Probe_methods[] = {
    {"get_debug", (PyCFunction)Probe_get_debug, METH_NOARGS, NULL},
    {"call_soon", (PyCFunction)(void (*)(void))Probe_call_soon,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"call_exception_handler", Probe_call_exception_handler, METH_O, NULL},
    {NULL},
};

static PyType_Slot Probe_slots[] = {
    {Py_tp_methods, Probe_methods},
    {Py_tp_dealloc, Probe_dealloc},
    {0, NULL},
};

static PyType_Spec Probe_spec = {
    .name = "ouroloop._core.Probe",
    .basicsize = sizeof(ProbeObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Probe_slots,
};

/* What the probes share.  All owned. */
typedef struct {
    module_state *state;
    ProbeObject *loop;
    PyObject *kwargs; /* {"loop": loop} */
    PyObject *wait;   /* async def wait(future): await future */
    PyObject *fail;   /* async def fail(exc): raise exc */
} probe;

/* The name of the first field that is not where it should be. */
#define EXPECT(condition, field)                 \
    do {                                         \
        if (!(condition)) {                      \
            p->state->stock.reason = field;      \
            goto done;                           \
        }                                        \
    } while (0)

/* An exception: the proof could not be held. */
#define NEED(condition)      \
    do {                     \
        if (!(condition)) {  \
            goto done;       \
        }                    \
    } while (0)

#define FUTURE(object) ((FutureObject *)(object))
#define TASK(object) ((TaskObject *)(object))

static PyObject *
call(PyObject *object, const char *name, PyObject *arg)
{
    PyObject *method = PyObject_GetAttrString(object, name);
    PyObject *result = method == NULL ? NULL
        : arg == NULL                 ? PyObject_CallNoArgs(method)
                                      : PyObject_CallOneArg(method, arg);
    Py_XDECREF(method);
    return result;
}

/* Call for its effect. */
static bool
did(PyObject *object, const char *name, PyObject *arg)
{
    PyObject *result = call(object, name, arg);
    Py_XDECREF(result);
    return result != NULL;
}

static PyObject *
new_future(probe *p)
{
    return PyObject_Call((PyObject *)p->state->stock.FutureType,
                         p->state->stock.no_args, p->kwargs);
}

/* New task of the coroutine function for one argument. */
static PyObject *
new_task(probe *p, PyObject *function, PyObject *arg, PyObject *name)
{
    PyObject *coro = PyObject_CallOneArg(function, arg);
    PyObject *args = coro == NULL ? NULL : PyTuple_Pack(1, coro);
    PyObject *kwargs = PyDict_Copy(p->kwargs), *result = NULL;

    if (args != NULL && kwargs != NULL &&
        (name == NULL || PyDict_SetItemString(kwargs, "name", name) == 0)) {
        result =
            PyObject_Call((PyObject *)p->state->stock.TaskType, args, kwargs);
    }
    Py_XDECREF(coro);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

/* Run the step that the last task asked the loop for. */
static bool
run_step(probe *p)
{
    PyObject *callback = p->loop->callback, *result;

    if (callback == NULL) {
        PyErr_SetString(PyExc_SystemError, "no step was scheduled");
        return false;
    }
    p->loop->callback = NULL;
    result = PyObject_CallNoArgs(callback);
    Py_DECREF(callback);
    Py_XDECREF(result);
    return result != NULL;
}

/* Break the cycle of a task that waits: it must not turn up anywhere. */
static void
abandon(PyObject *task)
{
    TASK(task)->log_destroy_pending = 0;
    Py_CLEAR(TASK(task)->fut_waiter);
    Py_CLEAR(TASK(task)->coro);
}

/* Callbacks, blocking, result, in the order of a future's life. */
static bool
prove_future(probe *p)
{
    bool proved = false;
    PyObject *future = NULL, *context = NULL, *more = NULL;
    PyObject *first = PyLong_FromLong(123456781);
    PyObject *second = PyLong_FromLong(123456782);

    NEED(first != NULL && second != NULL);
    NEED((future = new_future(p)) != NULL);
    EXPECT(FUTURE(future)->loop == (PyObject *)p->loop, "loop");
    EXPECT(FUTURE(future)->state == FUTURE_PENDING, "state");
    EXPECT(FUTURE(future)->callback0 == NULL, "callback0");
    NEED(did(future, "add_done_callback", first));
    EXPECT(FUTURE(future)->callback0 == first, "callback0");
    context = FUTURE(future)->context0;
    EXPECT(context != NULL && PyContext_CheckExact(context), "context0");
    context = NULL;
    EXPECT(FUTURE(future)->callbacks == NULL, "callbacks");
    NEED(did(future, "add_done_callback", second));
    more = FUTURE(future)->callbacks;
    EXPECT(more != NULL && PyList_CheckExact(more) &&
               PyList_GET_SIZE(more) == 1 &&
               PyTuple_CheckExact(PyList_GET_ITEM(more, 0)) &&
               PyTuple_GET_ITEM(PyList_GET_ITEM(more, 0), 0) == second,
           "callbacks");
    more = NULL;
    EXPECT(!FUTURE(future)->blocking && !FUTURE(future)->log_tb, "blocking");
    NEED(PyObject_SetAttr(future, p->state->str__asyncio_future_blocking,
                          Py_True) == 0);
    EXPECT(FUTURE(future)->blocking && !FUTURE(future)->log_tb &&
               FUTURE(future)->state == FUTURE_PENDING,
           "blocking");
    EXPECT(FUTURE(future)->result == NULL, "result");
    NEED(did(future, "set_result", first));
    EXPECT(FUTURE(future)->result == first, "result");
    EXPECT(FUTURE(future)->state == FUTURE_FINISHED, "state");
    EXPECT(
        FUTURE(future)->callback0 == NULL && FUTURE(future)->callbacks == NULL,
        "callbacks");
    proved = true;
done:
    Py_XDECREF(future);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return proved;
}

/* New exception with a traceback. */
static PyObject *
new_exception(probe *p)
{
    PyObject *exc = NULL, *value = NULL;

    /* Raised by a coroutine: C code alone has no traceback. */
    PyObject *coro = PyObject_CallOneArg(p->fail, PyExc_ValueError);
    if (coro == NULL) {
        return NULL;
    }
    if (PyIter_Send(coro, Py_None, &value) == PYGEN_ERROR &&
        PyErr_ExceptionMatches(PyExc_ValueError)) {
        exc = PyErr_GetRaisedException();
    }
    Py_XDECREF(value);
    Py_DECREF(coro);
    return exc;
}

/* Exception, traceback, log_tb, and what result() does with them. */
static bool
prove_exception(probe *p)
{
    bool proved = false;
    PyObject *future = NULL, *exc = new_exception(p), *traceback = NULL;

    NEED(exc != NULL);
    NEED((traceback = PyException_GetTraceback(exc)) != NULL);
    NEED((future = new_future(p)) != NULL);
    NEED(did(future, "set_exception", exc));
    EXPECT(FUTURE(future)->exception == exc, "exception");
    EXPECT(FUTURE(future)->exception_tb == traceback, "exception_tb");
    EXPECT(FUTURE(future)->log_tb && FUTURE(future)->state == FUTURE_FINISHED,
           "log_tb");
    if (did(future, "result", NULL) ||
        !PyErr_ExceptionMatches(PyExc_ValueError)) {
        goto done;
    }
    PyErr_Clear();
    EXPECT(!FUTURE(future)->log_tb, "log_tb");
    EXPECT(FUTURE(future)->exception_tb == NULL ||
               FUTURE(future)->exception_tb == traceback,
           "exception_tb");
    p->state->stock.keeps_exception_tb = FUTURE(future)->exception_tb != NULL;
    proved = true;
done:
    Py_XDECREF(future);
    Py_XDECREF(traceback);
    Py_XDECREF(exc);
    return proved;
}

/* Cancel message, source traceback. */
static bool
prove_cancelled_future(probe *p)
{
    bool proved = false;
    PyObject *future = NULL, *traceback = NULL;
    PyObject *message = PyLong_FromLong(123456783);

    NEED(message != NULL);
    p->loop->debug = true;
    future = new_future(p);
    p->loop->debug = false;
    NEED(future != NULL);
    NEED((traceback = PyObject_GetAttrString(future, "_source_traceback")) !=
         NULL);
    EXPECT(FUTURE(future)->source_tb == traceback && traceback != Py_None,
           "source_tb");
    NEED(did(future, "cancel", message));
    EXPECT(FUTURE(future)->cancel_msg == message, "cancel_msg");
    EXPECT(FUTURE(future)->state == FUTURE_CANCELLED, "state");
    proved = true;
done:
    Py_XDECREF(future);
    Py_XDECREF(traceback);
    Py_XDECREF(message);
    return proved;
}

/* A task that waits for a future, and what cancels it. */
static bool
prove_task(probe *p)
{
    bool proved = false;
    PyObject *future = NULL, *task = NULL, *name = NULL, *value = NULL;

    NEED((name = PyUnicode_FromString("probe")) != NULL);
    NEED((future = new_future(p)) != NULL);
    NEED((task = new_task(p, p->wait, future, name)) != NULL);
    EXPECT(TASK(task)->name == name, "name");
    EXPECT(TASK(task)->coro != NULL && PyCoro_CheckExact(TASK(task)->coro),
           "coro");
    EXPECT(TASK(task)->context != NULL &&
               PyContext_CheckExact(TASK(task)->context),
           "context");
    EXPECT(TASK(task)->log_destroy_pending && !TASK(task)->must_cancel,
           "log_destroy_pending");
    NEED(PyObject_SetAttrString(task, "_log_destroy_pending", Py_False) == 0);
    EXPECT(!TASK(task)->log_destroy_pending && !TASK(task)->must_cancel &&
               !TASK(task)->log_tb && !TASK(task)->blocking,
           "log_destroy_pending");
    EXPECT(TASK(task)->fut_waiter == NULL, "fut_waiter");
    NEED(run_step(p));
    EXPECT(TASK(task)->fut_waiter == future, "fut_waiter");
    EXPECT(!FUTURE(future)->blocking, "blocking");
#if COMPAT_AWAITED_BY
    EXPECT(TASK(task)->is_task && !FUTURE(future)->is_task, "is_task");
    EXPECT(FUTURE(future)->awaited_by == task &&
               !FUTURE(future)->awaited_by_is_set,
           "awaited_by");
#endif
    /* Cancels the future first; the task has to be without one. */
    Py_CLEAR(TASK(task)->fut_waiter);
    NEED(did(task, "cancel", NULL));
    EXPECT(TASK(task)->must_cancel && !TASK(task)->log_destroy_pending &&
               !TASK(task)->log_tb && !TASK(task)->blocking,
           "must_cancel");
#if COMPAT_TASK_CONTEXT
    EXPECT(TASK(task)->num_cancels_requested == 1, "num_cancels_requested");
    NEED(did(task, "uncancel", NULL));
    EXPECT(TASK(task)->num_cancels_requested == 0, "num_cancels_requested");
#endif
#if COMPAT_LAZY_NAMES
    Py_CLEAR(name);
    Py_SETREF(TASK(task)->name, PyLong_FromLong(123456784));
    NEED((value = call(task, "get_name", NULL)) != NULL);
    EXPECT(PyUnicode_Check(value) &&
               PyUnicode_CompareWithASCIIString(value, "Task-123456784") == 0,
           "name");
#endif
    abandon(task);
    proved = true;
done:
    Py_XDECREF(task);
    Py_XDECREF(future);
    Py_XDECREF(name);
    Py_XDECREF(value);
    return proved;
}

/* The error of a cancelled coroutine, which whoever awaits its task gets. */
static bool
prove_cancelled_task(probe *p)
{
    bool proved = false;
    PyObject *task = NULL;
    PyObject *exc = PyObject_CallNoArgs(p->state->CancelledError);

    NEED(exc != NULL);
    NEED((task = new_task(p, p->fail, exc, NULL)) != NULL);
    NEED(run_step(p));
    EXPECT(TASK(task)->state == FUTURE_CANCELLED, "state");
    EXPECT(TASK(task)->cancelled_exc == exc, "cancelled_exc");
    proved = true;
done:
    Py_XDECREF(task);
    Py_XDECREF(exc);
    return proved;
}

#if COMPAT_AWAITED_BY
static bool
prove_awaiters(probe *p)
{
    bool proved = false;
    PyObject *future = NULL, *first = NULL, *second = NULL;

    NEED((future = new_future(p)) != NULL);
    NEED((first = new_task(p, p->wait, future, NULL)) != NULL);
    NEED(run_step(p));
    NEED((second = new_task(p, p->wait, future, NULL)) != NULL);
    NEED(run_step(p));
    EXPECT(FUTURE(future)->awaited_by_is_set &&
               FUTURE(future)->awaited_by != NULL &&
               PySet_CheckExact(FUTURE(future)->awaited_by) &&
               PySet_GET_SIZE(FUTURE(future)->awaited_by) == 2,
           "awaited_by_is_set");
    abandon(first);
    abandon(second);
    proved = true;
done:
    Py_XDECREF(future);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return proved;
}
#endif

/* Sizes and the offsets that the types themselves tell. */
static bool
sizes_match(module_state *state)
{
    PyTypeObject *future = state->stock.FutureType;
    PyTypeObject *task = state->stock.TaskType;

    if (future->tp_basicsize != sizeof(FutureObject) ||
        task->tp_basicsize != STOCK_TASK_SIZE || future->tp_itemsize != 0 ||
        task->tp_itemsize != 0) {
        state->stock.reason = "size";
        return false;
    }
#if COMPAT_MANAGED_DICT
    unsigned long wanted =
        Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_MANAGED_WEAKREF;
    bool match = (future->tp_flags & wanted) == wanted &&
        (task->tp_flags & wanted) == wanted;
#else
    bool match = future->tp_dictoffset == offsetof(FutureObject, dict) &&
        task->tp_dictoffset == offsetof(FutureObject, dict) &&
        future->tp_weaklistoffset == offsetof(FutureObject, weakrefs) &&
        task->tp_weaklistoffset == offsetof(FutureObject, weakrefs);
#endif
    if (!match) {
        state->stock.reason = "dict and weak references";
    }
    return match;
}

#if COMPAT_TASKS_IN_THREAD

/* The registers come this soon behind the public part of a thread state, or
   they are not there at all. */
enum { THREAD_STATE_SCAN = 512 };

/* The offset of the one word that holds `object`; 0: not found. */
static size_t
find_in_thread_state(PyObject *object)
{
    PyThreadState *tstate = PyThreadState_Get();
    size_t offset = sizeof(PyThreadState);

    for (size_t end = offset + THREAD_STATE_SCAN; offset < end;
         offset += sizeof(PyObject *)) {
        if (*(PyObject **)((char *)tstate + offset) == object) {
            return offset;
        }
    }
    return 0;
}

static PyObject *
thread_state_word(size_t offset)
{
    return *(PyObject **)((char *)PyThreadState_Get() + offset);
}

/* With the probe as the running loop and no current task.  False without an
   exception: asyncio's functions must do. */
static bool
find_registers(probe *p)
{
    asyncio_facts *stock = &p->state->stock;
    PyObject *loop = (PyObject *)p->loop, *task = NULL, *future = NULL;
    PyObject *previous = NULL;
    bool found = false, entered = false;

    stock->running_loop = find_in_thread_state(loop);
    NEED(stock->running_loop != 0);
    NEED((future = new_future(p)) != NULL);
    NEED((task = new_task(p, p->wait, future, NULL)) != NULL);
    NEED(run_step(p));
    NEED((previous = Registry_swap(p->state, loop, task)) != NULL);
    entered = true;
    stock->running_task = find_in_thread_state(task);
    NEED(stock->running_task != 0 &&
         stock->running_task != stock->running_loop);
    /* The last task made is the last of the list, so its head is next. */
    NEED(TASK(task)->node.next != NULL &&
         TASK(task)->node.next->prev == &TASK(task)->node);
    stock->task_list =
        (char *)TASK(task)->node.next - (char *)PyThreadState_Get();
    NEED(stock->task_list > sizeof(PyThreadState) &&
         stock->task_list < sizeof(PyThreadState) + THREAD_STATE_SCAN);
    found = true;
done:
    if (entered) {
        PyObject *current = Registry_swap(p->state, loop, previous);
        found = found && current == task &&
            thread_state_word(stock->running_task) == NULL;
        Py_XDECREF(current);
        abandon(task);
    }
    Py_XDECREF(previous);
    Py_XDECREF(task);
    Py_XDECREF(future);
    return found;
}

#endif

/* Everything that needs the probe as the running loop. */
static bool
prove_fields(probe *p)
{
    asyncio_facts *stock = &p->state->stock;

    if (!prove_future(p) || !prove_exception(p) ||
        !prove_cancelled_future(p) || !prove_task(p) ||
        !prove_cancelled_task(p)) {
        return false;
    }
#if COMPAT_AWAITED_BY
    if (!prove_awaiters(p)) {
        return false;
    }
#endif
#if COMPAT_TASKS_IN_THREAD
    stock->native_registers = stock->native_registers && find_registers(p);
    PyErr_Clear();
#endif
    return stock->reason == NULL;
}

/* Make the probe the running loop, prove, and put all back: the module may be
   imported by a running task. */
static bool
prove_with_loop(probe *p)
{
    bool proved = false;
    PyObject *events = PyImport_ImportModule("asyncio.events");
    PyObject *loop = NULL, *task = NULL, *exc;

    NEED(events != NULL);
    NEED((loop = call(events, "_get_running_loop", NULL)) != NULL);
#if COMPAT_TASKS_IN_THREAD
    if (loop != Py_None) {
        NEED((task = Registry_swap(p->state, loop, Py_None)) != NULL);
    }
#endif
    NEED(did(events, "_set_running_loop", (PyObject *)p->loop));
    proved = prove_fields(p);
    exc = PyErr_GetRaisedException();
    (void)did(events, "_set_running_loop", loop);
#if COMPAT_TASKS_IN_THREAD
    if (task != NULL) {
        Py_SETREF(task, Registry_swap(p->state, loop, task));
    }
#endif
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
done:
    Py_XDECREF(events);
    Py_XDECREF(loop);
    Py_XDECREF(task);
    return proved;
}

static bool
prepare(probe *p, PyObject *module)
{
    static const char source[] =
        "async def wait(future):\n"
        "    await future\n"
        "async def fail(exc):\n"
        "    raise exc\n";
    PyObject *globals = PyDict_New(), *result = NULL, *type = NULL;
    bool prepared = false;

    NEED(globals != NULL);
    result = PyRun_String(source, Py_file_input, globals, globals);
    NEED(result != NULL);
    p->wait = Py_XNewRef(PyDict_GetItemString(globals, "wait"));
    p->fail = Py_XNewRef(PyDict_GetItemString(globals, "fail"));
    type = PyType_FromModuleAndSpec(module, &Probe_spec, NULL);
    NEED(type != NULL);
    NEED((p->loop = (ProbeObject *)PyObject_CallNoArgs(type)) != NULL);
    p->kwargs = PyDict_New();
    NEED(p->kwargs != NULL);
    NEED(PyDict_SetItem(p->kwargs, p->state->str_loop, (PyObject *)p->loop) ==
         0);
    prepared = p->wait != NULL && p->fail != NULL;
done:
    Py_XDECREF(globals);
    Py_XDECREF(result);
    Py_XDECREF(type);
    return prepared;
}

/* An iterator of asyncio's Future that has ended: see FutureIter_throw(). */
static bool
keep_iterator(probe *p)
{
    PyObject *future = new_future(p);
    PyObject *iterator = future == NULL ? NULL : PyObject_GetIter(future);

    Py_XDECREF(future);
    if (iterator == NULL || !did(iterator, "close", NULL)) {
        Py_XDECREF(iterator);
        return false;
    }
    p->state->stock.iterator = iterator;
    return true;
}

static void
prove(PyObject *module, module_state *state)
{
    probe p = {.state = state};

    state->stock.fast_types = sizes_match(state) && prepare(&p, module) &&
        prove_with_loop(&p) && keep_iterator(&p);
    if (!state->stock.fast_types && state->stock.reason == NULL) {
        state->stock.reason = "an exception";
    }
    PyErr_Clear();
    if (p.loop != NULL) {
        Py_CLEAR(p.loop->callback);
    }
    Py_XDECREF(p.loop);
    Py_XDECREF(p.kwargs);
    Py_XDECREF(p.wait);
    Py_XDECREF(p.fail);
}

static PyTypeObject *
import_type(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *type =
        module == NULL ? NULL : PyObject_GetAttrString(module, name);

    Py_XDECREF(module);
    if (type != NULL && !PyType_Check(type)) {
        PyErr_Format(PyExc_TypeError, "%s.%s is not a type", module_name,
                     name);
        Py_CLEAR(type);
    }
    return (PyTypeObject *)type;
}

/* The types that asyncio uses, whichever these are. */
static int
import_types(asyncio_facts *stock)
{
    stock->FutureType = import_type("asyncio.futures", "Future");
    if (stock->FutureType == NULL) {
        return -1;
    }
    stock->TaskType = import_type("asyncio.tasks", "Task");
    return stock->TaskType == NULL ? -1 : 0;
}

/* Are they those of _asyncio?  Not if there is none, or if somebody replaced
   them. */
static bool
are_native(asyncio_facts *stock)
{
    PyTypeObject *future = import_type("_asyncio", "Future");
    PyTypeObject *task =
        future == NULL ? NULL : import_type("_asyncio", "Task");
    bool native = task != NULL && future == stock->FutureType &&
        task == stock->TaskType &&
        (future->tp_flags & task->tp_flags & Py_TPFLAGS_IMMUTABLETYPE) != 0;

    PyErr_Clear();
    Py_XDECREF(future);
    Py_XDECREF(task);
    return native;
}

static bool
is_set(const char *variable, const char *value)
{
    const char *found = getenv(variable);
    return found != NULL && strcmp(found, value) == 0;
}

int
Proof_setup(PyObject *module, module_state *state)
{
    asyncio_facts *stock = &state->stock;

    stock->layout = LAYOUT_NAME;
    stock->no_args = PyTuple_New(0);
    stock->context_kwname = PyTuple_Pack(1, state->str_context);
    if (stock->no_args == NULL || stock->context_kwname == NULL ||
        import_types(stock) < 0) {
        return -1;
    }
    if (!are_native(stock)) {
        stock->reason = "asyncio does not use its C types";
    }
    /* For tests, and for those who meet a bug of ours. */
    if (is_set("OUROLOOP_STOCK_TYPES", "1")) {
        stock->reason = "OUROLOOP_STOCK_TYPES";
    }
    stock->native_registers = !is_set("OUROLOOP_REGISTERS", "calls");
#ifdef Py_GIL_DISABLED
    stock->reason = "free threading";
#endif
    if (stock->reason == NULL) {
        if (Registry_setup(state) < 0) {
            return -1;
        }
        prove(module, state);
    }
    if (!stock->fast_types) {
        stock->layout = "none";
    }
    if (PyModule_AddStringConstant(module, "LAYOUT", stock->layout) < 0 ||
        PyModule_AddStringConstant(module, "REGISTERS",
                                   !stock->fast_types ? "none"
                                       : stock->native_registers
                                       ? "native"
                                       : "calls") < 0 ||
        PyModule_AddStringConstant(
            module, "STOCK_TYPES_REASON",
            stock->reason == NULL ? "" : stock->reason) < 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "FAST_TYPES",
                                 stock->fast_types ? Py_True : Py_False);
}

int
Proof_traverse(module_state *state, visitproc visit, void *arg)
{
    asyncio_facts *stock = &state->stock;

    Py_VISIT(stock->FutureType);
    Py_VISIT(stock->TaskType);
    /* Not the iterator: asyncio's dealloc reads its type, which the collector
       at exit would otherwise have cleared before. */
    Py_VISIT(stock->no_args);
    Py_VISIT(stock->context_kwname);
    Py_VISIT(stock->enter_task);
    Py_VISIT(stock->leave_task);
    Py_VISIT(stock->register_task);
    Py_VISIT(stock->swap_current_task);
    Py_VISIT(stock->current_tasks);
    Py_VISIT(stock->task_set);
    return 0;
}

static void
free_list_clear(free_list *list)
{
    while (list->count > 0) {
        PyObject_GC_Del(list->objects[--list->count]);
    }
}

void
Proof_clear(module_state *state)
{
    asyncio_facts *stock = &state->stock;

    /* While their types are there: an object finds its head through it. */
    free_list_clear(&state->free_futures);
    free_list_clear(&state->free_tasks);
    free_list_clear(&state->free_iterators);
    Py_CLEAR(stock->FutureType);
    Py_CLEAR(stock->TaskType);
    Py_CLEAR(stock->iterator);
    Py_CLEAR(stock->no_args);
    Py_CLEAR(stock->context_kwname);
    Py_CLEAR(stock->enter_task);
    Py_CLEAR(stock->leave_task);
    Py_CLEAR(stock->register_task);
    Py_CLEAR(stock->swap_current_task);
    Py_CLEAR(stock->current_tasks);
    Py_CLEAR(stock->task_set);
}

/* Task: step and wake-up.

   A step comes from the ready queue (Task_step, Task_wakeup), where the loop
   takes care of the register of current tasks, or from a loop's call_soon()
   (step_now, Task_wakeup_now), with asyncio's own checks. */
#include "ouroloop.h"

/* TaskStep: what call_soon() of a loop that is not ours, or not to be passed
   by, gets to call for one step. */

typedef struct {
    PyObject_HEAD
    PyObject *task;
    PyObject *exc; /* to throw into the coroutine, or NULL */
} TaskStepObject;

static PyObject *step_now(PyObject *task, PyObject *exc);

static PyObject *
TaskStep_call(TaskStepObject *self, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError,
                        "function takes no keyword arguments");
        return NULL;
    }
    if (args != NULL && PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError,
                        "function takes no positional arguments");
        return NULL;
    }
    return step_now(self->task, self->exc);
}

static PyObject *
TaskStep_get_self(TaskStepObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->task == NULL ? Py_None : self->task);
}

static int
TaskStep_traverse(TaskStepObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->task);
    Py_VISIT(self->exc);
    return 0;
}

static int
TaskStep_clear(TaskStepObject *self)
{
    Py_CLEAR(self->task);
    Py_CLEAR(self->exc);
    return 0;
}

static void
TaskStep_dealloc(TaskStepObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)TaskStep_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyGetSetDef TaskStep_getset[] = {
    {"__self__", (getter)TaskStep_get_self, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot TaskStep_slots[] = {
    {Py_tp_call, TaskStep_call},         {Py_tp_getset, TaskStep_getset},
    {Py_tp_traverse, TaskStep_traverse}, {Py_tp_clear, TaskStep_clear},
    {Py_tp_dealloc, TaskStep_dealloc},   {0, NULL},
};

static PyType_Spec TaskStep_spec = {
    .name = "ouroloop._core.TaskStep",
    .basicsize = sizeof(TaskStepObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = TaskStep_slots,
};

int
TaskStep_setup_type(PyObject *module, module_state *state)
{
    if (!state->stock.fast_types) {
        return 0;
    }
    state->TaskStepType =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &TaskStep_spec, NULL);
    return state->TaskStepType == NULL ? -1 : 0;
}

/* Is there a way past call_soon() for this task? */
static inline bool
is_direct(TaskObject *self)
{
    return Loop_check(self->loop) &&
        Loop_is_direct((LoopObject *)self->loop) &&
        PyContext_CheckExact(self->context);
}

static PyObject *
TaskStep_new(module_state *state, PyObject *task, PyObject *exc)
{
    TaskStepObject *self =
        PyObject_GC_New(TaskStepObject, state->TaskStepType);

    if (self != NULL) {
        self->task = Py_NewRef(task);
        self->exc = Py_XNewRef(exc);
        PyObject_GC_Track(self);
    }
    return (PyObject *)self;
}

int
Task_schedule(TaskObject *self, PyObject *exc)
{
    PyObject *step;
    module_state *state;

    if (is_direct(self)) {
        return Ready_push(&((LoopObject *)self->loop)->ready, READY_STEP,
                          (PyObject *)self, exc, NULL);
    }
    state = Future_state((PyObject *)self);
    step = state == NULL ? NULL : TaskStep_new(state, (PyObject *)self, exc);
    if (step == NULL) {
        return -1;
    }
    int result =
        call_soon_by_name(state, self->loop, step, NULL, self->context);
    Py_DECREF(step);
    return result;
}

/* Have the next step throw RuntimeError(format % ...). */
static int
fail_soon(TaskObject *self, const char *format, ...)
{
    va_list arguments;
    PyObject *message, *exc = NULL;
    int result = -1;

    va_start(arguments, format);
    message = PyUnicode_FromFormatV(format, arguments); /* runs Python */
    va_end(arguments);
    if (message != NULL) {
        exc = PyObject_CallOneArg(PyExc_RuntimeError, message);
        Py_DECREF(message);
    }
    if (exc != NULL) {
        result = Task_schedule(self, exc);
        Py_DECREF(exc);
    }
    return result;
}

static int
fail_different_loop(TaskObject *self, PyObject *future)
{
    return fail_soon(self,
                     "Task %R got Future %R attached to a different loop",
                     self, future);
}

static int
fail_yield(TaskObject *self, PyObject *future)
{
    return fail_soon(self,
                     "yield was used instead of yield from in task %R with %R",
                     self, future);
}

/* What the task now waits for; steals `future`.  If the task was cancelled
   during its step, the future is.  Runs Python then. */
static int
set_waiter(module_state *state, TaskObject *self, PyObject *future)
{
    PyObject *message, *result;

    Py_XSETREF(self->fut_waiter, future);
    if (!self->must_cancel) {
        return 0;
    }
    message = self->cancel_msg == NULL ? Py_NewRef(Py_None)
                                       : Py_NewRef(self->cancel_msg);
    Py_INCREF(future);
    result = PyObject_CallMethodOneArg(future, state->str_cancel, message);
    Py_DECREF(future);
    Py_DECREF(message);
    int truth = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (truth > 0) {
        self->must_cancel = 0;
    }
    return Py_MIN(truth, 0);
}

/* Wait for a future of our own types, or asyncio's; steals it. */
static int
await_native(module_state *state, TaskObject *self, PyObject *op)
{
    FutureObject *future = (FutureObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    int result;

    if (future->loop != self->loop) {
        result = fail_different_loop(self, op);
        Py_DECREF(op);
        return result;
    }
    if (!future->blocking) {
        result = fail_yield(self, op);
        Py_DECREF(op);
        return result;
    }
    if (Registry_add_awaiter(state, op, (PyObject *)self) < 0) {
        Py_DECREF(op);
        return -1;
    }
    future->blocking = 0;
    if (Py_TYPE(self) == state->TaskType &&
        (type == state->FutureType || type == state->TaskType)) {
        result = Future_add_callback(future, (PyObject *)self, self->context);
    }
    else {
        /* A subclass may have a __call__() of its own, and asyncio's futures
           show their callbacks. */
        PyObject *wakeup = Future_new_wakeup((PyObject *)self);
        result = wakeup == NULL
            ? -1
            : Future_add_callback(future, wakeup, self->context);
        Py_XDECREF(wakeup);
    }
    if (result < 0) {
        Py_DECREF(op);
        return -1;
    }
    return set_waiter(state, self, op);
}

/* asyncio.futures._get_loop(): new. */
static PyObject *
loop_of(module_state *state, PyObject *future)
{
    PyObject *method, *loop;

    if (PyObject_GetOptionalAttr(future, state->str_get_loop, &method) < 0) {
        return NULL;
    }
    if (method == NULL) {
        return PyObject_GetAttr(future, state->str__loop);
    }
    loop = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return loop;
}

/* Wait for something that has asyncio's protocol of futures: a subclass, or a
   class of its own.  Steals it.  Runs Python. */
static int
await_foreign(module_state *state, TaskObject *self, PyObject *future,
              bool blocking)
{
    PyObject *wakeup = NULL, *value = NULL;
    PyObject *loop = loop_of(state, future);
    int result = -1;

    if (loop == NULL) {
        goto done;
    }
    Py_DECREF(loop);
    if (loop != self->loop) {
        result = fail_different_loop(self, future);
        goto done;
    }
    if (!blocking) {
        result = fail_yield(self, future);
        goto done;
    }
    if (Registry_add_awaiter(state, future, (PyObject *)self) < 0 ||
        PyObject_SetAttr(future, state->str__asyncio_future_blocking,
                         Py_False) < 0) {
        goto done;
    }
    wakeup = Future_new_wakeup((PyObject *)self);
    if (wakeup == NULL) {
        goto done;
    }
    PyObject *args[] = {future, wakeup, self->context};
    value = PyObject_VectorcallMethod(state->str_add_done_callback, args, 2,
                                      state->stock.context_kwname);
    if (value != NULL) {
        result = set_waiter(state, self, Py_NewRef(future));
    }
done:
    Py_XDECREF(value);
    Py_XDECREF(wakeup);
    Py_DECREF(future);
    return result;
}

/* Act on what the coroutine yielded; steals it.  May run Python. */
static int
handle_yield(module_state *state, TaskObject *self, PyObject *yielded)
{
    PyTypeObject *type = Py_TYPE(yielded);
    PyObject *value;
    int result;

    if (yielded == (PyObject *)self) {
        result = fail_soon(self, "Task cannot await on itself: %R", self);
        Py_DECREF(yielded);
        return result;
    }
    if (type == state->FutureType || type == state->TaskType ||
        ((type == state->stock.FutureType || type == state->stock.TaskType) &&
         ((FutureObject *)yielded)->state == FUTURE_PENDING)) {
        return await_native(state, self, yielded);
    }
    if (yielded == Py_None) {
        Py_DECREF(yielded);
        return Task_schedule(self, NULL);
    }
    if (PyObject_GetOptionalAttr(yielded, state->str__asyncio_future_blocking,
                                 &value) < 0) {
        Py_DECREF(yielded);
        return -1;
    }
    if (value != NULL && value != Py_None) {
        int blocking = PyObject_IsTrue(value);
        Py_DECREF(value);
        if (blocking < 0) {
            Py_DECREF(yielded);
            return -1;
        }
        return await_foreign(state, self, yielded, blocking);
    }
    Py_XDECREF(value);
    result = PyObject_IsInstance(yielded, (PyObject *)&PyGen_Type);
    if (result >= 0) {
        result = result
            ? fail_soon(self,
                        "yield was used instead of yield from for generator "
                        "in task %R with %R",
                        self, yielded)
            : fail_soon(self, "Task got bad yield: %R", yielded);
    }
    Py_DECREF(yielded);
    return result;
}

/* The coroutine raised.  -1: what the loop must hear of, too. */
static int
handle_error(module_state *state, TaskObject *self)
{
    bool cancelled = PyErr_ExceptionMatches(state->CancelledError);
    PyObject *exc = PyErr_GetRaisedException();
    int result;

    if (cancelled) {
        /* Whoever awaits the task gets this very exception. */
        Py_XSETREF(self->cancelled_exc, exc);
#if COMPAT_ERROR_IN_PARTS
        Py_XSETREF(self->cancelled_exc_type, Py_NewRef(Py_TYPE(exc)));
        Py_XSETREF(self->cancelled_exc_tb, PyException_GetTraceback(exc));
#endif
        return Future_abort((FutureObject *)self, NULL);
    }
    result = Future_fail((FutureObject *)self, exc);
    if (result == 0 &&
        (PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt) ||
         PyErr_GivenExceptionMatches(exc, PyExc_SystemExit))) {
        PyErr_SetRaisedException(exc);
        return -1;
    }
    Py_DECREF(exc);
    return result;
}

/* If the set exception is StopIteration, take its value. */
static PySendResult
take_stop_value(PyObject **value)
{
    PyObject *exc;

    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    exc = PyErr_GetRaisedException();
    *value = Py_NewRef(((PyStopIterationObject *)exc)->value);
    Py_DECREF(exc);
    return PYGEN_RETURN;
}

/* Is this the CancelledError that a cancelled task is owed? */
static bool
is_cancelled_error(module_state *state, PyObject *exc)
{
    return exc != NULL &&
        PyErr_GivenExceptionMatches(exc, state->CancelledError);
}

/* One step: send or throw, then act on what comes out.  -1: an exception that
   is not the coroutine's own affair.  Runs Python. */
static int
run_step(module_state *state, TaskObject *self, PyObject *exc)
{
    PyObject *coro, *value = NULL, *cancelled_error = NULL;
    PySendResult sent;
    int result;

    if (self->state != FUTURE_PENDING) {
        PyErr_Format(state->InvalidStateError, "%s(): already done: %R %R",
                     COMPAT_STEP_NAME, self, exc == NULL ? Py_None : exc);
        return -1;
    }
    if (self->must_cancel) {
        if (!is_cancelled_error(state, exc)) {
            cancelled_error =
                Future_call_stock(state, state->str__make_cancelled_error,
                                  (PyObject *)self, NULL);
            if (cancelled_error == NULL) {
                return -1;
            }
            exc = cancelled_error;
        }
        self->must_cancel = 0;
    }
    Py_CLEAR(self->fut_waiter);
    if (self->coro == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        Py_XDECREF(cancelled_error);
        return -1;
    }
    coro = Py_NewRef(self->coro);
    if (exc == NULL) {
        sent = PyIter_Send(coro, Py_None, &value);
    }
    else {
        value = PyObject_CallMethodOneArg(coro, state->str_throw, exc);
        sent = value == NULL ? take_stop_value(&value) : PYGEN_NEXT;
        Py_XDECREF(cancelled_error);
    }
    Py_DECREF(coro);

    switch (sent) {
    case PYGEN_NEXT:
        return handle_yield(state, self, value);
    case PYGEN_RETURN:
        if (self->must_cancel) {
            /* Cancelled by itself just before it returned. */
            self->must_cancel = 0;
            PyObject *message = Py_XNewRef(self->cancel_msg);
            result = Future_abort((FutureObject *)self, message);
            Py_XDECREF(message);
        }
        else {
            result = Future_finish((FutureObject *)self, value);
        }
        Py_DECREF(value);
        break;
    default:
        result = handle_error(state, self);
        break;
    }
    Registry_remove(self);
    return result;
}

/* What the future brings to the task that waited for it: false and NULL, or
   the exception to throw, new; -1 with an exception that is not the
   coroutine's.  May run Python. */
static int
take_outcome(module_state *state, TaskObject *self, PyObject *op,
             PyObject **exc)
{
    FutureObject *future = (FutureObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject *value;

    *exc = NULL;
    if (Registry_discard_awaiter(state, op, (PyObject *)self) < 0) {
        return -1;
    }
    if ((type == state->FutureType || type == state->TaskType) &&
        future->state == FUTURE_FINISHED) {
        future->log_tb = 0;
        if (future->exception == NULL) {
            return 0;
        }
        if (PyException_SetTraceback(future->exception,
                                     future->exception_tb == NULL
                                         ? Py_None
                                         : future->exception_tb) < 0) {
            return -1;
        }
        *exc = Py_NewRef(future->exception);
        if (!state->stock.keeps_exception_tb) {
            Py_CLEAR(future->exception_tb);
        }
        return 0;
    }
    value = PyObject_CallMethodNoArgs(op, state->str_result);
    if (value != NULL) {
        Py_DECREF(value);
        return 0;
    }
    *exc = PyErr_GetRaisedException();
    return 0;
}

/* From the ready queue. */

/* Report what went wrong with a step as that of the callback that asyncio
   would have made for it; future: what woke the task, or NULL. */
static int
report_step(LoopObject *loop, TaskObject *self, PyObject *future,
            PyObject *exc)
{
    PyObject *raised = PyErr_GetRaisedException(), *callback;

    if (Registry_leave(loop) < 0) {
        PyErr_Clear();
    }
    callback = future == NULL
        ? TaskStep_new(loop->state, (PyObject *)self, exc)
        : Future_new_wakeup((PyObject *)self);
    if (callback == NULL) {
        Py_DECREF(raised);
        return -1;
    }
    PyErr_SetRaisedException(raised);
    int result = report_call(loop, callback, future, self->context);
    Py_DECREF(callback);
    return result;
}

static int
step_on_loop(LoopObject *loop, TaskObject *self, PyObject *exc,
             PyObject *future)
{
    PyObject *context = Py_NewRef(self->context);
    int result = -1;

    if (Registry_enter(loop, (PyObject *)self) == 0 &&
        PyContext_Enter(context) == 0) {
        result = run_step(loop->state, self, exc);
        PyObject *raised = result < 0 ? PyErr_GetRaisedException() : NULL;
        if (PyContext_Exit(context) < 0) {
            result = -1;
            Py_XDECREF(raised);
        }
        else if (raised != NULL) {
            PyErr_SetRaisedException(raised);
        }
    }
    Py_DECREF(context);
    return result < 0 && !is_fatal() ? report_step(loop, self, future, exc)
                                     : result;
}

/* __init__() was called once more, with another loop, while a step was on the
   queue: leave it to asyncio's checks. */
static int
step_astray(PyObject *result)
{
    if (result == NULL) {
        if (is_fatal()) {
            return -1;
        }
        PyErr_WriteUnraisable(NULL);
        return 0;
    }
    Py_DECREF(result);
    return 0;
}

int
Task_step(PyObject *op, PyObject *exc)
{
    TaskObject *self = (TaskObject *)op;

    if (self->loop == NULL || !Loop_check(self->loop)) {
        return step_astray(step_now(op, exc));
    }
    return step_on_loop((LoopObject *)self->loop, self, exc, NULL);
}

int
Task_wakeup(PyObject *op, PyObject *future)
{
    TaskObject *self = (TaskObject *)op;
    PyObject *exc;
    LoopObject *loop;

    if (self->loop == NULL || !Loop_check(self->loop)) {
        return step_astray(Task_wakeup_now(op, future));
    }
    loop = (LoopObject *)self->loop;
    if (take_outcome(loop->state, self, future, &exc) < 0) {
        return is_fatal() ? -1 : report_step(loop, self, future, NULL);
    }
    int result = step_on_loop(loop, self, exc, future);
    Py_XDECREF(exc);
    return result;
}

/* From call_soon(). */

/* Go on with the exception that was set before a clean-up, which may have
   raised one more. */
static void
chain_exception(PyObject *exc)
{
    PyObject *later = PyErr_GetRaisedException();

    if (later == NULL) {
        PyErr_SetRaisedException(exc);
        return;
    }
    PyException_SetContext(later, exc);
    PyErr_SetRaisedException(later);
}

static PyObject *
step_now(PyObject *op, PyObject *exc)
{
    TaskObject *self = (TaskObject *)op;
    module_state *state = Future_state(op);
    PyObject *loop;

    if (state == NULL) {
        return NULL;
    }
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return NULL;
    }
    loop = Py_NewRef(self->loop);
    int result = Registry_enter_checked(state, loop, op);
    if (result == 0) {
        result = run_step(state, self, exc);
        PyObject *raised = result < 0 ? PyErr_GetRaisedException() : NULL;
        if (Registry_leave_checked(state, loop, op) < 0) {
            result = -1;
        }
        if (raised != NULL) {
            chain_exception(raised);
        }
    }
    Py_DECREF(loop);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
Task_wakeup_now(PyObject *op, PyObject *future)
{
    module_state *state = Future_state(op);
    PyObject *exc, *result;

    if (state == NULL ||
        take_outcome(state, (TaskObject *)op, future, &exc) < 0) {
        return NULL;
    }
    result = step_now(op, exc);
    Py_XDECREF(exc);
    return result;
}

/* Inside of whatever runs now. */

int
Task_start(module_state *state, TaskObject *self)
{
    PyObject *loop = Py_NewRef(self->loop);
    PyObject *context = Py_NewRef(self->context);
    PyObject *previous = Registry_swap(state, loop, (PyObject *)self);
    PyObject *raised, *current;
    int result = -1;

    if (previous == NULL) {
        goto done;
    }
    if (PyContext_Enter(context) == 0) {
        if (Registry_add(state, self) == 0) {
            result = run_step(state, self, NULL);
        }
        raised = result < 0 ? PyErr_GetRaisedException() : NULL;
        if (PyContext_Exit(context) < 0) {
            result = -1;
        }
        if (raised != NULL) {
            chain_exception(raised);
        }
    }
    raised = result < 0 ? PyErr_GetRaisedException() : NULL;
    current = Registry_swap(state, loop, previous);
    if (current == NULL) {
        result = -1;
    }
    Py_XDECREF(current);
    Py_DECREF(previous);
    if (raised != NULL) {
        chain_exception(raised);
    }
    if (self->state != FUTURE_PENDING) {
        Py_CLEAR(self->coro);
    }
done:
    Py_DECREF(loop);
    Py_DECREF(context);
    return result;
}

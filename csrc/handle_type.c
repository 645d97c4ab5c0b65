/* What Python sees of handles: methods, attributes, types.  What is rare and a
   matter of text is answered by asyncio's own functions. */
#include "ouroloop.h"

static PyObject *
Handle_cancel(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->cancelled) {
        Py_RETURN_NONE;
    }
    self->cancelled = true;
    if (self->loop->debug) {
        /* The slow callback log still wants to name the callback. */
        PyObject *text = PyObject_Repr((PyObject *)self);
        if (text == NULL) {
            return NULL;
        }
        Py_XSETREF(self->repr, text);
    }
    Handle_release(self);
    Py_RETURN_NONE;
}

static PyObject *
TimerHandle_cancel(TimerHandleObject *self, PyObject *ignored)
{
    if (!self->handle.cancelled && self->scheduled) {
        self->handle.loop->timers.cancelled++;
    }
    return Handle_cancel(&self->handle, ignored);
}

static PyObject *
Handle_cancelled(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->cancelled);
}

/* Let the callback that another thread runs come to its end.  Lets the GIL
   go, so that it can. */
static int
wait_for_callback(ThreadSafeHandleObject *self)
{
    if (self->running_in == 0 ||
        self->running_in == PyThread_get_thread_ident()) {
        return 0;
    }
    if (self->finished == NULL) {
        self->finished = PyThread_allocate_lock();
        if (self->finished == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        PyThread_acquire_lock(self->finished, NOWAIT_LOCK);
    }
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(self->finished, WAIT_LOCK);
    Py_END_ALLOW_THREADS
    /* For the next one who waits. */
    PyThread_release_lock(self->finished);
    return 0;
}

static PyObject *
ThreadSafeHandle_cancel(ThreadSafeHandleObject *self, PyObject *ignored)
{
    return wait_for_callback(self) < 0 ? NULL
                                       : Handle_cancel(&self->handle, ignored);
}

static PyObject *
ThreadSafeHandle_cancelled(ThreadSafeHandleObject *self, PyObject *ignored)
{
    return wait_for_callback(self) < 0
        ? NULL
        : Handle_cancelled(&self->handle, ignored);
}

static PyObject *
Handle_get_context(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return self->context == NULL ? PyContext_New() : Py_NewRef(self->context);
}

static PyObject *
Handle__run(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    if (Handle_run(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* asyncio's own function `name` of `type`, called with self first. */
static PyObject *
call_stock(PyObject *type, const char *name, PyObject *self, PyObject *other)
{
    PyObject *function = PyObject_GetAttrString(type, name);
    if (function == NULL) {
        return NULL;
    }
    PyObject *result =
        PyObject_CallFunctionObjArgs(function, self, other, NULL);
    Py_DECREF(function);
    return result;
}

static PyObject *
Handle_repr_info(HandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return call_stock(self->loop->state->Handle, "_repr_info",
                      (PyObject *)self, NULL);
}

static PyObject *
Handle_repr(HandleObject *self)
{
    return call_stock(self->loop->state->Handle, "__repr__", (PyObject *)self,
                      NULL);
}

static PyObject *
TimerHandle_repr_info(TimerHandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return call_stock(self->handle.loop->state->TimerHandle, "_repr_info",
                      (PyObject *)self, NULL);
}

static PyObject *
TimerHandle_get_when(TimerHandleObject *self, void *Py_UNUSED(closure))
{
    return self->when_object != NULL ? Py_NewRef(self->when_object)
                                     : PyFloat_FromDouble(self->when);
}

static PyObject *
TimerHandle_when(TimerHandleObject *self, PyObject *Py_UNUSED(ignored))
{
    return TimerHandle_get_when(self, NULL);
}

static Py_hash_t
TimerHandle_hash(TimerHandleObject *self)
{
    PyObject *when = TimerHandle_get_when(self, NULL);
    if (when == NULL) {
        return -1;
    }
    Py_hash_t hash = PyObject_Hash(when);
    Py_DECREF(when);
    return hash;
}

static PyObject *
TimerHandle_richcompare(TimerHandleObject *self, PyObject *other, int op)
{
    static const char *const names[] = {
        [Py_LT] = "__lt__", [Py_LE] = "__le__", [Py_EQ] = "__eq__",
        [Py_NE] = "__ne__", [Py_GT] = "__gt__", [Py_GE] = "__ge__",
    };

    if (op == Py_NE) {
        /* asyncio defines none, and so has "not equal" in its place. */
        PyObject *equal = TimerHandle_richcompare(self, other, Py_EQ);
        if (equal == NULL || equal == Py_NotImplemented) {
            return equal;
        }
        int truth = PyObject_IsTrue(equal);
        Py_DECREF(equal);
        return truth < 0 ? NULL : PyBool_FromLong(!truth);
    }
    return call_stock(self->handle.loop->state->TimerHandle, names[op],
                      (PyObject *)self, other);
}

static PyObject *
Handle_get_class(HandleObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop->state->Handle);
}

static PyObject *
ThreadSafeHandle_get_class(HandleObject *Py_UNUSED(self),
                           void *Py_UNUSED(closure))
{
    /* Asked for by isinstance() only, so it is not worth an import. */
    PyObject *events = PyImport_ImportModule("asyncio.events");
    if (events == NULL) {
        return NULL;
    }
    PyObject *type = PyObject_GetAttrString(events, "_ThreadSafeHandle");
    Py_DECREF(events);
    return type;
}

static PyObject *
TimerHandle_get_class(TimerHandleObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->handle.loop->state->TimerHandle);
}

static PyObject *
Handle_get_args(HandleObject *self, void *Py_UNUSED(closure))
{
    if (self->callback == NULL) {
        Py_RETURN_NONE;
    }
    return Handle_args_tuple(self->args, self->nargs);
}

PyDoc_STRVAR(Handle_doc,
"A callback scheduled by loop.call_soon(); see asyncio.Handle.");
PyDoc_STRVAR(ThreadSafeHandle_doc,
"A callback scheduled by loop.call_soon_threadsafe().  While it runs,\n"
"cancel() and cancelled() in another thread wait for its end.");
PyDoc_STRVAR(TimerHandle_doc,
"A callback scheduled by loop.call_later() or loop.call_at(); see\n"
"asyncio.TimerHandle.");
PyDoc_STRVAR(cancel_doc,
"cancel($self, /)\n--\n\n"
"Do not call the callback.  No effect once it was called or cancelled.");
PyDoc_STRVAR(cancelled_doc,
"cancelled($self, /)\n--\n\n"
"Return True if the handle was cancelled.");
PyDoc_STRVAR(get_context_doc,
"get_context($self, /)\n--\n\n"
"Return the contextvars.Context that the callback runs in; an empty one\n"
"afterwards.");
PyDoc_STRVAR(when_doc,
"when($self, /)\n--\n\n"
"Return when the callback is due: seconds on the clock of loop.time().");

#define HANDLE_METHODS                                                     \
    {"get_context", (PyCFunction)Handle_get_context, METH_NOARGS,          \
     get_context_doc},                                                     \
    {"_run", (PyCFunction)Handle__run, METH_NOARGS, NULL}

static PyMethodDef Handle_methods[] = {
    {"cancel", (PyCFunction)Handle_cancel, METH_NOARGS, cancel_doc},
    {"cancelled", (PyCFunction)Handle_cancelled, METH_NOARGS, cancelled_doc},
    {"_repr_info", (PyCFunction)Handle_repr_info, METH_NOARGS, NULL},
    HANDLE_METHODS,
    {NULL},
};

static PyMethodDef ThreadSafeHandle_methods[] = {
    {"cancel", (PyCFunction)ThreadSafeHandle_cancel, METH_NOARGS, cancel_doc},
    {"cancelled", (PyCFunction)ThreadSafeHandle_cancelled, METH_NOARGS,
     cancelled_doc},
    {"_repr_info", (PyCFunction)Handle_repr_info, METH_NOARGS, NULL},
    HANDLE_METHODS,
    {NULL},
};

static PyMethodDef TimerHandle_methods[] = {
    {"cancel", (PyCFunction)TimerHandle_cancel, METH_NOARGS, cancel_doc},
    {"cancelled", (PyCFunction)Handle_cancelled, METH_NOARGS, cancelled_doc},
    {"when", (PyCFunction)TimerHandle_when, METH_NOARGS, when_doc},
    {"_repr_info", (PyCFunction)TimerHandle_repr_info, METH_NOARGS, NULL},
    HANDLE_METHODS,
    {NULL},
};

#define HANDLE_MEMBERS                                                     \
    {"__weaklistoffset__", T_PYSSIZET, offsetof(HandleObject, weakrefs),   \
     READONLY},                                                            \
        {"_loop", T_OBJECT, offsetof(HandleObject, loop), READONLY},       \
        {"_callback", T_OBJECT, offsetof(HandleObject, callback),          \
         READONLY},                                                        \
        {"_context", T_OBJECT, offsetof(HandleObject, context), READONLY}, \
        {"_source_traceback", T_OBJECT,                                    \
         offsetof(HandleObject, source_traceback), READONLY},              \
        {"_repr", T_OBJECT, offsetof(HandleObject, repr), READONLY},       \
        {"_cancelled", T_BOOL, offsetof(HandleObject, cancelled), READONLY}

static PyMemberDef Handle_members[] = {HANDLE_MEMBERS, {NULL}};

static PyMemberDef TimerHandle_members[] = {
    HANDLE_MEMBERS,
    {"_scheduled", T_BOOL, offsetof(TimerHandleObject, scheduled), READONLY},
    {NULL},
};

static PyGetSetDef Handle_getset[] = {
    {"__class__", (getter)Handle_get_class, NULL, NULL, NULL},
    {"_args", (getter)Handle_get_args, NULL, NULL, NULL},
    {NULL},
};

static PyGetSetDef ThreadSafeHandle_getset[] = {
    {"__class__", (getter)ThreadSafeHandle_get_class, NULL, NULL, NULL},
    {"_args", (getter)Handle_get_args, NULL, NULL, NULL},
    {NULL},
};

static PyGetSetDef TimerHandle_getset[] = {
    {"__class__", (getter)TimerHandle_get_class, NULL, NULL, NULL},
    {"_args", (getter)Handle_get_args, NULL, NULL, NULL},
    {"_when", (getter)TimerHandle_get_when, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot Handle_slots[] = {
    {Py_tp_doc, (void *)Handle_doc},
    {Py_tp_dealloc, Handle_dealloc},
    {Py_tp_repr, Handle_repr},
    {Py_tp_methods, Handle_methods},
    {Py_tp_members, Handle_members},
    {Py_tp_getset, Handle_getset},
    {0, NULL},
};

static PyType_Slot ThreadSafeHandle_slots[] = {
    {Py_tp_doc, (void *)ThreadSafeHandle_doc},
    {Py_tp_dealloc, ThreadSafeHandle_dealloc},
    {Py_tp_repr, Handle_repr},
    {Py_tp_methods, ThreadSafeHandle_methods},
    {Py_tp_members, Handle_members},
    {Py_tp_getset, ThreadSafeHandle_getset},
    {0, NULL},
};

static PyType_Slot TimerHandle_slots[] = {
    {Py_tp_doc, (void *)TimerHandle_doc},
    {Py_tp_dealloc, TimerHandle_dealloc},
    {Py_tp_repr, Handle_repr},
    {Py_tp_hash, TimerHandle_hash},
    {Py_tp_richcompare, TimerHandle_richcompare},
    {Py_tp_methods, TimerHandle_methods},
    {Py_tp_members, TimerHandle_members},
    {Py_tp_getset, TimerHandle_getset},
    {0, NULL},
};

#define HANDLE_FLAGS                                  \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | \
     Py_TPFLAGS_DISALLOW_INSTANTIATION)

static PyType_Spec Handle_spec = {
    .name = "ouroloop._core.Handle",
    .basicsize = sizeof(HandleObject),
    .flags = HANDLE_FLAGS,
    .slots = Handle_slots,
};

static PyType_Spec ThreadSafeHandle_spec = {
    .name = "ouroloop._core._ThreadSafeHandle",
    .basicsize = sizeof(ThreadSafeHandleObject),
    .flags = HANDLE_FLAGS,
    .slots = ThreadSafeHandle_slots,
};

static PyType_Spec TimerHandle_spec = {
    .name = "ouroloop._core.TimerHandle",
    .basicsize = sizeof(TimerHandleObject),
    .flags = HANDLE_FLAGS,
    .slots = TimerHandle_slots,
};

static int
setup_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : 0;
}

int
Handle_setup_type(PyObject *module, module_state *state)
{
    return setup_type(module, &Handle_spec, &state->HandleType);
}

int
TimerHandle_setup_type(PyObject *module, module_state *state)
{
    return setup_type(module, &TimerHandle_spec, &state->TimerHandleType);
}

int
ThreadSafeHandle_setup_type(PyObject *module, module_state *state)
{
    return setup_type(module, &ThreadSafeHandle_spec,
                      &state->ThreadSafeHandleType);
}

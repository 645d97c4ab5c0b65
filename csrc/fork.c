/* fork: a child must not touch what its parent's loops share with it.  An
   epoll set is one object in both processes, so the first epoll_ctl() of the
   child, be it of close(), would take the parent's watchers away.  Python
   calls us in the child of os.fork(); each inherited loop gets an epoll set of
   its own there, and is marked so that it cannot run. */
#include "ouroloop.h"

void
Fork_track(LoopObject *self)
{
    module_state *state = self->state;

    self->next_loop = state->open_loops;
    if (self->next_loop != NULL) {
        self->next_loop->previous_loop = self;
    }
    self->previous_loop = NULL;
    state->open_loops = self;
}

void
Fork_untrack(LoopObject *self)
{
    if (self->previous_loop != NULL) {
        self->previous_loop->next_loop = self->next_loop;
    }
    else {
        self->state->open_loops = self->next_loop;
    }
    if (self->next_loop != NULL) {
        self->next_loop->previous_loop = self->previous_loop;
    }
    self->next_loop = self->previous_loop = NULL;
}

void
Fork_refuse(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "Event loop was inherited by fork and cannot run in the "
                    "child process");
}

static PyObject *
after_fork_in_child(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    module_state *state = PyModule_GetState(module);

    for (LoopObject *loop = state->open_loops; loop != NULL;
         loop = loop->next_loop) {
        loop->inherited = true;
        uv_stop(&loop->uv);
        int err = uv_loop_fork(&loop->uv);
        /* Signals of the child are not the parent's. */
        if (Signals_detach(loop) < 0) {
            return NULL;
        }
        if (err < 0) {
            return raise_uv(err);
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef after_fork_method = {
    "_after_fork_in_child", after_fork_in_child, METH_NOARGS, NULL};

int
Fork_setup(PyObject *module)
{
    PyObject *function = NULL, *os = NULL, *value = NULL;
    PyObject *add = NULL, *args = NULL, *keywords = NULL;

    function = PyCFunction_NewEx(&after_fork_method, module, NULL);
    os = PyImport_ImportModule("os");
    add = os == NULL ? NULL : PyObject_GetAttrString(os, "register_at_fork");
    args = PyTuple_New(0);
    if (function == NULL || add == NULL || args == NULL) {
        goto done;
    }
    keywords = Py_BuildValue("{s:O}", "after_in_child", function);
    if (keywords != NULL) {
        value = PyObject_Call(add, args, keywords);
    }
done:
    Py_XDECREF(function);
    Py_XDECREF(os);
    Py_XDECREF(add);
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

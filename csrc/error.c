/* Errors: libuv's as OSError, and those that no Python caller can catch as a
   call of the loop's exception handler.  An on_*() function ends here rather
   than leave an exception set. */
#include "ouroloop.h"

#include <errno.h>

PyObject *
raise_uv(int err)
{
    /* libuv's numbers are errno's, negated; the text is to be Python's. */
    errno = -err;
    return PyErr_SetFromErrno(PyExc_OSError);
}

void
begin_handling(PyObject *exc, handled_exception *outer)
{
    PyErr_GetExcInfo(&outer->type, &outer->value, &outer->traceback);
    PyErr_SetExcInfo(Py_NewRef(Py_TYPE(exc)), Py_NewRef(exc),
                     PyException_GetTraceback(exc));
}

void
end_handling(handled_exception *outer)
{
    PyErr_SetExcInfo(outer->type, outer->value, outer->traceback);
}

void
Loop_fail(LoopObject *self)
{
    Py_XSETREF(self->error, PyErr_GetRaisedException());
    uv_stop(&self->uv);
}

void
Loop_report(LoopObject *self, const char *message, const char *key,
            PyObject *source)
{
    PyObject *exc = NULL, *context = NULL, *result = NULL;

    if (is_fatal()) {
        Loop_fail(self);
        return;
    }
    exc = PyErr_GetRaisedException();
    context = Py_BuildValue("{s:s,s:O}", "message", message, "exception", exc);
    if (context == NULL ||
        (source != NULL && PyDict_SetItemString(context, key, source) < 0)) {
        goto done;
    }
    handled_exception outer;
    begin_handling(exc, &outer);
    /* By name: the instance or a subclass may have its own. */
    result = PyObject_CallMethodOneArg(
        (PyObject *)self, self->state->str_call_exception_handler, context);
    end_handling(&outer);
done:
    if (result == NULL) {
        if (is_fatal()) {
            Loop_fail(self);
        }
        else {
            PyErr_WriteUnraisable((PyObject *)self);
        }
    }
    Py_XDECREF(result);
    Py_XDECREF(context);
    Py_XDECREF(exc);
}

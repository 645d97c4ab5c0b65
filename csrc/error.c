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
        (source != NULL &&
         PyDict_SetItemString(context, key, source) < 0)) {
        goto done;
    }
    /* By name: the instance or a subclass may have its own. */
    result = PyObject_CallMethodOneArg(
        (PyObject *)self, self->state->str_call_exception_handler, context);
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

/* The floor of the TCP benchmarks: an echo server on bare libuv, as lean as
 * its API allows. One shared read buffer, the answer written at once, the rest
 * queued only if the socket is full. Prints its port, serves 127.0.0.1 until
 * stdin ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static char shared_buffer[256 * 1024];

typedef struct {
    uv_write_t request;
    char bytes[];
} Pending;

static void
check(int status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(shared_buffer, sizeof(shared_buffer));
}

static void
on_written(uv_write_t *request, int status)
{
    (void)status;
    free(request->data);
}

static void
on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    if (count < 0) {
        uv_close((uv_handle_t *)stream, on_closed);
        return;
    }
    uv_buf_t answer = uv_buf_init(buffer->base, (unsigned)count);
    int written = uv_try_write(stream, &answer, 1);
    if (written == UV_EAGAIN) {
        written = 0;
    }
    if (written < 0 || written == count) {
        return; /* a broken connection is reported by the next read */
    }
    size_t rest = (size_t)(count - written);
    Pending *pending = malloc(sizeof(*pending) + rest);
    if (pending == NULL) {
        abort();
    }
    memcpy(pending->bytes, buffer->base + written, rest);
    pending->request.data = pending;
    answer = uv_buf_init(pending->bytes, (unsigned)rest);
    check(uv_write(&pending->request, stream, &answer, 1, on_written),
          "uv_write");
}

static void
on_connection(uv_stream_t *server, int status)
{
    check(status, "listen");
    uv_tcp_t *client = malloc(sizeof(*client));
    if (client == NULL) {
        abort();
    }
    check(uv_tcp_init(server->loop, client), "uv_tcp_init");
    check(uv_accept(server, (uv_stream_t *)client), "uv_accept");
    check(uv_tcp_nodelay(client, 1), "uv_tcp_nodelay");
    check(uv_read_start((uv_stream_t *)client, on_alloc, on_read),
          "uv_read_start");
}

static void
on_stdin(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    (void)buffer;
    if (count < 0) {
        uv_stop(stream->loop);
    }
}

int
main(void)
{
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t server;
    uv_pipe_t input;
    struct sockaddr_in address;
    int length = sizeof(address);

    check(uv_tcp_init(loop, &server), "uv_tcp_init");
    check(uv_ip4_addr("127.0.0.1", 0, &address), "uv_ip4_addr");
    check(uv_tcp_bind(&server, (struct sockaddr *)&address, 0), "uv_tcp_bind");
    check(uv_listen((uv_stream_t *)&server, 1024, on_connection), "uv_listen");
    check(uv_tcp_getsockname(&server, (struct sockaddr *)&address, &length),
          "getsockname");
    check(uv_pipe_init(loop, &input, 0), "uv_pipe_init");
    check(uv_pipe_open(&input, 0), "uv_pipe_open");
    check(uv_read_start((uv_stream_t *)&input, on_alloc, on_stdin),
          "uv_read_start");
    printf("%d\n", ((address.sin_port & 0xff) << 8) | (address.sin_port >> 8));
    fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}

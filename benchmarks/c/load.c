/* The load of the servers' benchmarks: N sockets, one message under way on
 * each, an epoll loop that sends the next as soon as the answer is complete.
 * Linux only.
 *
 *   load tcp|unix|udp|churn ADDRESS PID SOCKETS MESSAGE_BYTES REQUESTS
 *
 * ADDRESS is a port of 127.0.0.1, with `unix` a path. `churn` is TCP with a
 * new connection for each request. A message is MESSAGE_BYTES - 1 letters and
 * a newline; the answer must be the same bytes, in as many pieces as the
 * server likes. After a warm-up of a tenth it makes REQUESTS requests in up to
 * ten slices and prints JSON: the CPU nanoseconds of process PID per request,
 * the median over the slices; requests per second; and the median and 99th
 * percentile of the latency. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    TIME_LIMIT_S = 20,
    MAX_EVENTS = 256,
    MAX_SLICES = 10,
    SETTLE_US = 2000
};

typedef struct {
    int fd;
    size_t to_send;
    size_t to_receive;
    int64_t sent_ns;
} Connection;

static char *message;
static char *received;
static size_t message_bytes;
static int epoll_fd;
static int socket_type = SOCK_STREAM;
static bool new_for_each_request;
static union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_un un;
} server;
static socklen_t server_bytes;
static clockid_t server_clock;

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t
now_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) {
        fail("clock_gettime");
    }
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void
watch(Connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data = {.ptr = connection}};
    if (epoll_ctl(epoll_fd, operation, connection->fd, &event) < 0) {
        fail("epoll_ctl");
    }
}

static void
send_some(Connection *connection)
{
    size_t was = connection->to_send;
    while (connection->to_send > 0) {
        ssize_t count =
            send(connection->fd, message + message_bytes - connection->to_send,
                 connection->to_send, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) {
            break;
        }
        if (count < 0) {
            fail("send");
        }
        connection->to_send -= (size_t)count;
    }
    if (connection->to_send > 0 && was == message_bytes) {
        watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    else if (connection->to_send == 0 && was < message_bytes) {
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void
open_connection(Connection *connection)
{
    int one = 1, fd = socket(server.any.sa_family, socket_type, 0);
    if (fd < 0 || connect(fd, &server.any, server_bytes) < 0) {
        fail("connect");
    }
    if (server.any.sa_family == AF_INET && socket_type == SOCK_STREAM) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    connection->fd = fd;
    watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static void
send_message(Connection *connection)
{
    if (new_for_each_request) {
        open_connection(connection);
    }
    connection->to_send = message_bytes;
    connection->to_receive = message_bytes;
    connection->sent_ns = now_ns(CLOCK_MONOTONIC);
    send_some(connection);
}

/* Whether the answer is complete now. */
static int
receive_some(Connection *connection)
{
    ssize_t count =
        recv(connection->fd, received, connection->to_receive, MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) {
        return 0;
    }
    if (count < 0) {
        fail("recv");
    }
    if (count == 0) {
        fprintf(stderr, "the server closed a connection\n");
        exit(1);
    }
    if (memcmp(received, message + message_bytes - connection->to_receive,
               (size_t)count)) {
        fprintf(stderr, "the answer differs from the message\n");
        exit(1);
    }
    connection->to_receive -= (size_t)count;
    return connection->to_receive == 0;
}

static int
by_size(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* Make `requests` requests, each connection always with one under way, and put
 * the latencies into `latencies`. All connections are idle before and after.
 */
static void
run(Connection *connections, int count, int64_t requests, int64_t *latencies)
{
    struct epoll_event events[MAX_EVENTS];
    int64_t started = 0, done = 0;
    for (int i = 0; i < count && started < requests; i++, started++) {
        send_message(&connections[i]);
    }
    while (done < requests) {
        int ready = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        if (ready < 0) {
            fail("epoll_wait");
        }
        for (int i = 0; i < ready; i++) {
            Connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                send_some(connection);
            }
            if (!(events[i].events & ~(uint32_t)EPOLLOUT) ||
                !receive_some(connection)) {
                continue;
            }
            latencies[done++] = now_ns(CLOCK_MONOTONIC) - connection->sent_ns;
            if (new_for_each_request) {
                close(connection->fd);
            }
            if (started < requests) {
                started++;
                send_message(connection);
            }
        }
    }
}

/* The server's CPU time. The kernel brings the clock of another process up to
 * date when that goes to sleep, else only at each tick, every 4 ms. */
static int64_t
server_cpu_ns(void)
{
    usleep(SETTLE_US);
    return now_ns(server_clock);
}

static void
parse_server(const char *kind, const char *address)
{
    if (strcmp(kind, "unix") == 0) {
        server.un.sun_family = AF_UNIX;
        snprintf(server.un.sun_path, sizeof(server.un.sun_path), "%s",
                 address);
        server_bytes = sizeof(server.un);
        return;
    }
    server.in.sin_family = AF_INET;
    server.in.sin_port = htons((uint16_t)atoi(address));
    server.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server_bytes = sizeof(server.in);
    new_for_each_request = strcmp(kind, "churn") == 0;
    socket_type = strcmp(kind, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
}

int
main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr,
                "usage: load tcp|unix|udp|churn ADDRESS PID SOCKETS "
                "MESSAGE_BYTES REQUESTS\n");
        return 2;
    }
    int count = atoi(argv[4]);
    int64_t requests = atoll(argv[6]);
    message_bytes = (size_t)atoll(argv[5]);
    message = malloc(message_bytes);
    received = malloc(message_bytes);
    Connection *connections = calloc((size_t)count, sizeof(*connections));
    int64_t *latencies =
        malloc(sizeof(*latencies) * ((size_t)requests + (size_t)count));
    if (!message || !received || !connections || !latencies) {
        fail("malloc");
    }
    memset(message, 'x', message_bytes);
    message[message_bytes - 1] = '\n';

    if (clock_getcpuclockid((pid_t)atoi(argv[3]), &server_clock) != 0) {
        fprintf(stderr, "no process %s\n", argv[3]);
        return 1;
    }
    alarm(TIME_LIMIT_S); /* a server that stops answering must not hold up the
                            run */
    epoll_fd = epoll_create1(0);
    parse_server(argv[1], argv[2]);
    for (int i = 0; i < count && !new_for_each_request; i++) {
        open_connection(&connections[i]);
    }
    int64_t warm_up = requests / 10 > count ? requests / 10 : count;
    run(connections, count, warm_up, latencies);

    /* Each begins and ends with idle connections, which must not weigh. */
    int64_t slices = requests / (4 * count);
    slices = slices < 1 ? 1 : slices > MAX_SLICES ? MAX_SLICES : slices;
    int64_t slice = requests / slices, cpu_ns[MAX_SLICES], wall_ns = 0;
    requests = slice * slices;
    for (int i = 0; i < slices; i++) {
        int64_t cpu_before_ns = server_cpu_ns();
        int64_t before_ns = now_ns(CLOCK_MONOTONIC);
        run(connections, count, slice, latencies + i * slice);
        wall_ns += now_ns(CLOCK_MONOTONIC) - before_ns;
        cpu_ns[i] = server_cpu_ns() - cpu_before_ns;
    }

    qsort(cpu_ns, (size_t)slices, sizeof(*cpu_ns), by_size);
    qsort(latencies, (size_t)requests, sizeof(*latencies), by_size);
    printf(
        "{\"cpu_ns\": %.1f, \"per_second\": %.0f, \"p50_us\": %.1f, "
        "\"p99_us\": %.1f}\n",
        (double)(cpu_ns[slices / 2] + cpu_ns[(slices - 1) / 2]) / 2.0 /
            (double)slice,
        (double)requests * 1e9 / (double)wall_ns,
        (double)latencies[requests / 2] / 1e3,
        (double)latencies[requests * 99 / 100] / 1e3);
    return 0;
}

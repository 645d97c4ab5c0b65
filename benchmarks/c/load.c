/* The load of the TCP benchmarks: N connections, one message under way on
 * each, an epoll loop that sends the next as soon as the answer is complete.
 * Linux only.
 *
 *   load PORT PID CONNECTIONS MESSAGE_BYTES REQUESTS
 *
 * A message is MESSAGE_BYTES - 1 letters and a newline; the answer must be the
 * same bytes, in as many pieces as the server likes. After a warm-up of a
 * tenth it notes the CPU time of process PID, makes REQUESTS requests, and
 * prints JSON: that process's CPU nanoseconds per request, requests per second
 * and the median and 99th percentile of the latency. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TIME_LIMIT_S = 20, MAX_EVENTS = 256 };

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
send_message(Connection *connection)
{
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
            if (started < requests) {
                started++;
                send_message(connection);
            }
        }
    }
}

int
main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr,
                "usage: load PORT PID CONNECTIONS MESSAGE_BYTES REQUESTS\n");
        return 2;
    }
    int count = atoi(argv[3]);
    int64_t requests = atoll(argv[5]);
    message_bytes = (size_t)atoll(argv[4]);
    message = malloc(message_bytes);
    received = malloc(message_bytes);
    Connection *connections = calloc((size_t)count, sizeof(*connections));
    int64_t *latencies = malloc(sizeof(*latencies) * (size_t)requests);
    if (!message || !received || !connections || !latencies) {
        fail("malloc");
    }
    memset(message, 'x', message_bytes);
    message[message_bytes - 1] = '\n';

    clockid_t server_clock;
    if (clock_getcpuclockid((pid_t)atoi(argv[2]), &server_clock) != 0) {
        fprintf(stderr, "no process %s\n", argv[2]);
        return 1;
    }
    alarm(TIME_LIMIT_S); /* a server that stops answering must not hold up the
                            run */
    epoll_fd = epoll_create1(0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(argv[1])),
        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    for (int i = 0; i < count; i++) {
        int one = 1;
        connections[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connections[i].fd < 0 ||
            connect(connections[i].fd, (struct sockaddr *)&address,
                    sizeof(address)) < 0) {
            fail("connect");
        }
        setsockopt(connections[i].fd, IPPROTO_TCP, TCP_NODELAY, &one,
                   sizeof(one));
        watch(&connections[i], EPOLL_CTL_ADD, EPOLLIN);
    }
    run(connections, count, requests / 10 > count ? requests / 10 : count,
        latencies);

    int64_t cpu_ns = now_ns(server_clock), wall_ns = now_ns(CLOCK_MONOTONIC);
    run(connections, count, requests, latencies);
    wall_ns = now_ns(CLOCK_MONOTONIC) - wall_ns;
    cpu_ns = now_ns(server_clock) - cpu_ns;

    qsort(latencies, (size_t)requests, sizeof(*latencies), by_size);
    printf(
        "{\"cpu_ns\": %.1f, \"per_second\": %.0f, \"p50_us\": %.1f, "
        "\"p99_us\": %.1f}\n",
        (double)cpu_ns / (double)requests,
        (double)requests * 1e9 / (double)wall_ns,
        (double)latencies[requests / 2] / 1e3,
        (double)latencies[requests * 99 / 100] / 1e3);
    return 0;
}

/*
 * PID 1 of the nginx container. nginx-socket binds the published port. This program gets the listening socket from
 * it, runs nginx on it, drains nginx before it stops, and starts nginx again when nginx-socket has a new socket.
 *
 *   SIGQUIT, SIGTERM   drain (every answer carries `Connection: close`), let nginx finish what it has accepted, exit 0
 *   SIGINT             stop at once
 *   SIGHUP, SIGUSR1    passed on to nginx: read the configuration again, open the logs again
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POOL "/run/pool/nginx.sock"
#define DRAIN_FILE "/run/nginx/draining"     /* server/drain.conf checks whether it exists */
/* In the order of sockets/nginx-socket.ini: HTTP, and HTTPS with overrides/tls.yaml */
#define MAX_SOCKETS 2
#define MAX_REQUESTS 4096
static const char *const listen_files[MAX_SOCKETS] = {"/run/nginx/listen-http.conf", "/run/nginx/listen-https.conf"};
static const char *const listen_options[MAX_SOCKETS] = {"", " ssl"};
/* nginx checks for DRAIN_FILE once a second, and may be slow to connect to uwsgi-socket after that. */
static const double check_seconds = 1.5;
/* After an answer without `Connection: close`, a client may take so long to send its next request. */
static const double client_seconds = 1;
/* A drain ends after so long, whatever is being answered; stop_grace_period (compose.yaml) counts on it. */
static const double drain_seconds = 10;
static const struct timespec tick = {.tv_nsec = 250000000};

/* Sockets from the pool. If their inodes differ from those in use, nginx-socket was replaced. */
struct sockets {
    int count;
    int fd[MAX_SOCKETS];
    ino_t inode[MAX_SOCKETS];
};

/* The pool sent its sockets, does not exist (nginx-socket is down), or did not answer properly within a second. */
enum answer { RECEIVED, GONE, SILENT };

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("run-nginx: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

__attribute__((noreturn)) static void fail(const char *what)
{
    say("%s: %s", what, strerror(errno));
    exit(1);
}

static int connect_to_pool(void)
{
    const struct sockaddr_un pool = {.sun_family = AF_UNIX, .sun_path = POOL};
    const struct timeval timeout = {.tv_sec = 1};
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection == -1)
        fail("socket");
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (connect(connection, (const struct sockaddr *)&pool, sizeof pool) == 0)
        return connection;
    int reason = errno;
    close(connection);
    errno = reason;
    return -1;
}

/* Get the sockets from the pool. For the format, see uwsgi_manage_zerg in uWSGI's core/socket.c. */
static enum answer get_sockets(struct sockets *got)
{
    char greeting[sizeof "uwsgi-zerg" - 1 + sizeof(int)];
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * MAX_SOCKETS)];
    } control;
    struct iovec text = {.iov_base = greeting, .iov_len = sizeof greeting};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    *got = (struct sockets){0};

    int connection = connect_to_pool();
    if (connection == -1)
        return errno == ENOENT || errno == ECONNREFUSED ? GONE : SILENT;
    ssize_t length = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    int reason = length > 0 ? EPROTO : length == 0 ? ECONNRESET : errno;
    close(connection);
    errno = reason;
    const struct cmsghdr *control_header = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!control_header || control_header->cmsg_type != SCM_RIGHTS)
        return SILENT;
    if (message.msg_flags & MSG_CTRUNC) {
        say("nginx-socket has more than %d sockets (sockets/nginx-socket.ini)", MAX_SOCKETS);
        exit(1);
    }
    got->count = (int)((control_header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(got->fd, CMSG_DATA(control_header), sizeof(int) * (size_t)got->count);
    for (int number = 0; number < got->count; number++) {
        struct stat details;
        if (fstat(got->fd[number], &details) == -1)
            fail("fstat of a socket from " POOL);
        got->inode[number] = details.st_ino;
    }
    return RECEIVED;
}

static void close_all(const struct sockets *sockets)
{
    for (int number = 0; number < sockets->count; number++)
        close(sockets->fd[number]);
}

static bool same(const struct sockets *first, const struct sockets *second)
{
    return first->count == second->count && memcmp(first->inode, second->inode, sizeof first->inode) == 0;
}

/* Returns the address as `listen` takes it: nginx uses an inherited socket only for the same address. */
static void address_of(int fd, char *shown, size_t room)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&address, &length) == -1)
        fail("getsockname of a socket from " POOL);
    int error = getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                            NI_NUMERICHOST | NI_NUMERICSERV);
    if (error) {
        say("the socket from nginx-socket is not a TCP socket: %s. See HTTP_SOCKET in compose.yaml",
            gai_strerror(error));
        exit(1);
    }
    snprintf(shown, room, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* Write one file for each socket; an empty one if nginx-socket does not have it. */
static void write_listen(const struct sockets *sockets)
{
    for (int number = 0; number < MAX_SOCKETS; number++) {
        FILE *file = fopen(listen_files[number], "w");
        if (!file)
            fail(listen_files[number]);
        if (number < sockets->count) {
            char shown[NI_MAXHOST + NI_MAXSERV];
            address_of(sockets->fd[number], shown, sizeof shown);
            fprintf(file, "listen %s%s;\n", shown, listen_options[number]);
            say("nginx takes over %s", shown);
        }
        if (fclose(file) == EOF)
            fail(listen_files[number]);
    }
}

/* Start nginx on these sockets. The variable NGINX="3;4;" is how nginx passes them on when its binary is replaced. */
static pid_t start(const struct sockets *sockets)
{
    write_listen(sockets);
    pid_t nginx = fork();
    if (nginx == -1)
        fail("fork");
    if (nginx > 0)
        return nginx;
    char inherited[MAX_SOCKETS * 12] = "";
    for (int number = 0; number < sockets->count; number++) {
        int status = fcntl(sockets->fd[number], F_GETFL);
        fcntl(sockets->fd[number], F_SETFL, status | O_NONBLOCK);
        fcntl(sockets->fd[number], F_SETFD, 0);
        sprintf(inherited + strlen(inherited), "%d;", sockets->fd[number]);
    }
    setenv("NGINX", inherited, 1);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execlp("nginx", "nginx", (char *)NULL);
    fail("exec nginx");
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* nginx finishes what it has accepted and accepts no more. */
static void stop_gracefully(pid_t nginx)
{
    if (nginx)
        kill(nginx, SIGQUIT);
}

/* Sockets of this network namespace. Those of clients belong to that of nginx-socket, so the only ones that come and go
 * here are those to uwsgi-socket: one for each request that Django is answering. */
struct requests {
    size_t count;
    unsigned long inode[MAX_REQUESTS];
};

static void add_inodes(struct requests *found, const char *table, int column)
{
    char line[512];
    FILE *file = fopen(table, "re");
    while (file && found->count < MAX_REQUESTS && fgets(line, sizeof line, file)) {
        const char *field = line + strspn(line, " ");
        for (int number = 0; number < column; number++) {
            field += strcspn(field, " ");
            field += strspn(field, " ");
        }
        unsigned long inode = strtoul(field, NULL, 10);
        if (inode > 0)
            found->inode[found->count++] = inode;
    }
    if (file)
        fclose(file);
}

static void find_requests(struct requests *found)
{
    found->count = 0;
    add_inodes(found, "/proc/net/unix", 6);
    add_inodes(found, "/proc/net/tcp", 9);
}

/* Leave those requests that are still being answered. Returns true if one is not. */
static bool some_answered(struct requests *requests)
{
    static struct requests now;
    size_t before = requests->count;
    find_requests(&now);
    requests->count = 0;
    for (size_t number = 0; number < before; number++)
        for (size_t other = 0; other < now.count; other++)
            if (requests->inode[number] == now.inode[other]) {
                requests->inode[requests->count++] = now.inode[other];
                break;
            }
    return requests->count < before;
}

/* Returns whether nginx can be told to end, `began` being the time at which the drain did. nginx decides on
 * `Connection: close` when a request begins, so those that began before the drain are answered without it. Its clients
 * count on their connections, which nginx closes when it is told to end: each gets time to send one more request. */
static bool drained(double began)
{
    static struct requests early;
    static double last_answer;
    double now = seconds();
    if (now < began + check_seconds)
        return false;
    if (last_answer == 0) {
        last_answer = began + check_seconds;
        find_requests(&early);
    } else if (some_answered(&early)) {
        last_answer = now;
    }
    return now >= last_answer + client_seconds || now >= began + drain_seconds;
}

/* Compare the sockets in use with those of nginx-socket. If they differ, start nginx on the new ones. */
static void follow_pool(struct sockets *used, pid_t *nginx)
{
    static bool logged;
    struct sockets now;
    enum answer answer = get_sockets(&now);
    if (answer != RECEIVED && !logged && (answer == GONE || !*nginx)) {
        say("waiting for nginx-socket: %s: %s. If this does not end, see: docker compose logs nginx-socket", POOL,
            strerror(errno));
        logged = true;
    }
    /* No answer may only mean a slow nginx-socket: nginx keeps its sockets. */
    if (answer == SILENT || (answer == RECEIVED && same(&now, used))) {
        close_all(&now);
        return;
    }
    /* On the host's network, nginx-socket cannot bind the port again while nginx has the old socket open. */
    stop_gracefully(*nginx);
    *nginx = 0;
    *used = now;
    if (answer == RECEIVED) {
        *nginx = start(&now);
        logged = false;
        /* nginx has inherited them; if they stayed open here, the port would stay bound. */
        close_all(&now);
    }
}

/* Collect the processes that have ended. Returns false if none is left. */
static bool reap(pid_t *nginx, bool stopping)
{
    int status;
    pid_t ended;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
        if (ended != *nginx)
            continue;
        *nginx = 0;
        if (!stopping) {
            bool killed = WIFSIGNALED(status);
            say("nginx has ended unexpectedly (%s %d); the reason is above. Docker starts this container again",
                killed ? "signal" : "status", killed ? WTERMSIG(status) : WEXITSTATUS(status));
            exit(1);
        }
    }
    return ended == 0;
}

int main(void)
{
    const int handled[] = {SIGCHLD, SIGQUIT, SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    sigset_t signals;
    sigemptyset(&signals);
    for (size_t number = 0; number < sizeof handled / sizeof *handled; number++)
        sigaddset(&signals, handled[number]);
    sigprocmask(SIG_BLOCK, &signals, NULL);

    struct sockets used = {0};
    pid_t nginx = 0;
    bool stopping = false;
    double drain_began = 0; /* 0: no drain */
    for (;;) {
        if (!stopping)
            follow_pool(&used, &nginx);
        int signal = sigtimedwait(&signals, NULL, &tick);
        if ((signal == SIGQUIT || signal == SIGTERM) && !stopping) {
            stopping = true;
            if (nginx) {
                int file = open(DRAIN_FILE, O_CREAT | O_CLOEXEC, 0600);
                if (file == -1)
                    say("cannot drain, so idle connections will be cut: " DRAIN_FILE ": %s", strerror(errno));
                drain_began = seconds();
            }
        } else if (signal == SIGINT) {
            stopping = true;
            drain_began = 0;
            if (nginx)
                kill(nginx, SIGTERM);
        } else if ((signal == SIGHUP || signal == SIGUSR1) && nginx) {
            kill(nginx, signal);
        }
        if (drain_began > 0 && drained(drain_began)) {
            drain_began = 0;
            stop_gracefully(nginx);
        }
        bool children_left = reap(&nginx, stopping);
        if (stopping && !children_left)
            return 0;
    }
}

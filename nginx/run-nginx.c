/*
 * PID 1 of the nginx container. nginx-socket holds the published port; this program gets the listening socket from
 * it, runs nginx on it, drains nginx before it stops, and follows when nginx-socket has bound a new socket.
 *
 *   SIGQUIT, SIGTERM   drain (every answer says `Connection: close`), then let nginx finish what it has; exit 0
 *   SIGINT             end at once
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
#define LISTEN_FILE "/run/nginx/listen.conf" /* included by site.conf */
#define DRAIN_FILE "/run/nginx/draining"     /* looked for by server/drain.conf */
#define MOST 8
/* nginx looks for DRAIN_FILE once a second; a second more is for clients to make one more request. */
static const double drain_seconds = 2;
static const struct timespec tick = {.tv_nsec = 250000000};

/* The sockets in use, by inode: while the pool hands out others, nginx-socket has been replaced. */
struct sockets {
    int count;
    int fd[MOST];
    ino_t inode[MOST];
};

enum answer { HANDED, GONE, SILENT };

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
    const struct timeval patience = {.tv_sec = 1};
    int asking = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (asking == -1)
        fail("socket");
    setsockopt(asking, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(asking, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(asking, (const struct sockaddr *)&pool, sizeof pool) == 0)
        return asking;
    int reason = errno;
    close(asking);
    errno = reason;
    return -1;
}

/* Ask the pool for its sockets. What it sends: uWSGI's core/socket.c, uwsgi_manage_zerg. */
static enum answer ask(struct sockets *got)
{
    char greeting[sizeof "uwsgi-zerg" - 1 + sizeof(int)];
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * MOST)];
    } control;
    struct iovec text = {.iov_base = greeting, .iov_len = sizeof greeting};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    *got = (struct sockets){0};

    int asking = connect_to_pool();
    if (asking == -1)
        return errno == ENOENT || errno == ECONNREFUSED ? GONE : SILENT;
    ssize_t length = recvmsg(asking, &message, MSG_CMSG_CLOEXEC);
    int reason = length > 0 ? EPROTO : length == 0 ? ECONNRESET : errno;
    close(asking);
    errno = reason;
    const struct cmsghdr *handed = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!handed || handed->cmsg_type != SCM_RIGHTS)
        return SILENT;
    if (message.msg_flags & MSG_CTRUNC) {
        say("nginx-socket has more than %d sockets (sockets/nginx-socket.ini)", MOST);
        exit(1);
    }
    got->count = (int)((handed->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(got->fd, CMSG_DATA(handed), sizeof(int) * (size_t)got->count);
    for (int number = 0; number < got->count; number++) {
        struct stat told;
        if (fstat(got->fd[number], &told) == -1)
            fail("fstat of a socket from " POOL);
        got->inode[number] = told.st_ino;
    }
    return HANDED;
}

static void let_go(const struct sockets *sockets)
{
    for (int number = 0; number < sockets->count; number++)
        close(sockets->fd[number]);
}

static bool same(const struct sockets *one, const struct sockets *other)
{
    return one->count == other->count && memcmp(one->inode, other->inode, sizeof one->inode) == 0;
}

/* nginx uses an inherited socket where a `listen` has its address, and would bind a socket of its own otherwise. */
static void write_listen(const struct sockets *sockets)
{
    FILE *file = fopen(LISTEN_FILE, "w");
    if (!file)
        fail("write " LISTEN_FILE);
    for (int number = 0; number < sockets->count; number++) {
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        char host[NI_MAXHOST], port[NI_MAXSERV];
        if (getsockname(sockets->fd[number], (struct sockaddr *)&address, &length) == -1)
            fail("getsockname of a socket from " POOL);
        int wrong = getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                                NI_NUMERICHOST | NI_NUMERICSERV);
        if (wrong) {
            say("nginx-socket handed over something that is not a TCP socket: %s. See UWSGI_SOCKET in compose.yaml",
                gai_strerror(wrong));
            exit(1);
        }
        char shown[NI_MAXHOST + NI_MAXSERV];
        snprintf(shown, sizeof shown, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
        fprintf(file, "listen %s;\n", shown);
        say("nginx takes over %s", shown);
    }
    if (fclose(file) == EOF)
        fail("write " LISTEN_FILE);
}

/* Start nginx on these sockets, the way it hands them on itself when its binary is changed: NGINX="3;4;". */
static pid_t start(const struct sockets *sockets)
{
    write_listen(sockets);
    pid_t nginx = fork();
    if (nginx == -1)
        fail("fork");
    if (nginx > 0)
        return nginx;
    char inherited[MOST * 12] = "";
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

/* Have nginx finish what it has accepted and accept no more. */
static void quit(pid_t nginx)
{
    if (nginx)
        kill(nginx, SIGQUIT);
}

/* Look whether the sockets in use are still what nginx-socket hands out, and act if not. */
static void look(struct sockets *used, pid_t *nginx)
{
    static bool told;
    struct sockets now;
    enum answer answer = ask(&now);
    if (answer != HANDED && !told && (answer == GONE || !*nginx)) {
        say("waiting for nginx-socket: %s: %s. If it stays so: docker compose logs nginx-socket", POOL,
            strerror(errno));
        told = true;
    }
    /* Slow is not dead: nginx keeps what it has. */
    if (answer == SILENT || (answer == HANDED && same(&now, used))) {
        let_go(&now);
        return;
    }
    /* On the host's network no one can bind the port again while nginx has the old socket open. */
    quit(*nginx);
    *nginx = 0;
    *used = now;
    if (answer == HANDED) {
        *nginx = start(&now);
        told = false;
        /* nginx has inherited its own; one left open here would keep the port bound. */
        let_go(&now);
    }
}

/* Note what has ended. Returns false once there is no child left. */
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
            say("nginx has ended by itself (%s %d); the reason is above. Docker starts this container again",
                killed ? "signal" : "status", killed ? WTERMSIG(status) : WEXITSTATUS(status));
            exit(1);
        }
    }
    return ended == 0;
}

int main(void)
{
    const int wanted[] = {SIGCHLD, SIGQUIT, SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    sigset_t signals;
    sigemptyset(&signals);
    for (size_t number = 0; number < sizeof wanted / sizeof *wanted; number++)
        sigaddset(&signals, wanted[number]);
    sigprocmask(SIG_BLOCK, &signals, NULL);

    struct sockets used = {0};
    pid_t nginx = 0;
    bool stopping = false;
    double drained = 0; /* when the drain is over; 0: there is none */
    for (;;) {
        if (!stopping)
            look(&used, &nginx);
        int signal = sigtimedwait(&signals, NULL, &tick);
        if ((signal == SIGQUIT || signal == SIGTERM) && !stopping) {
            stopping = true;
            if (nginx) {
                int file = open(DRAIN_FILE, O_CREAT | O_CLOEXEC, 0600);
                if (file == -1)
                    say("cannot drain, idle connections will be cut: " DRAIN_FILE ": %s", strerror(errno));
                drained = seconds() + drain_seconds;
            }
        } else if (signal == SIGINT) {
            stopping = true;
            drained = 0;
            if (nginx)
                kill(nginx, SIGTERM);
        } else if ((signal == SIGHUP || signal == SIGUSR1) && nginx) {
            kill(nginx, signal);
        }
        if (drained > 0 && seconds() >= drained) {
            drained = 0;
            quit(nginx);
        }
        bool any = reap(&nginx, stopping);
        if (stopping && !any)
            return 0;
    }
}

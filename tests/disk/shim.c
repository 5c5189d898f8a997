/* A disk for tests, preloaded into the host: one that a power cut empties of what was not synced, one that is full, read-only,
   slow or fails to sync, and a clock that is ahead.

   TIDEGATE_DISK_ROOT     a folder, by its real path: what lies in it is on this disk
   TIDEGATE_DISK_SHADOW   where what is durable of it is kept: names/ID is a folder as it was at its last fsync, a line "d ID NAME"
                          or "f ID NAME" for each name; bytes/ID is a file as it was at its last fsync or fdatasync. What is there
                          at the start is durable. Unset: nothing is kept, and the real calls are made.
   TIDEGATE_DISK_CONTROL  a file whose first byte says how the disk is: n normal, f full, r read-only, s slow (a sync takes one
                          second), e syncs fail. It may change at any time.
   TIDEGATE_CLOCK_AHEAD   seconds that the wall clock is ahead

   An ID is the inode's number and its time of birth, as numbers are used again. Only syncs make anything durable, so that nothing
   else must be watched: what happens by calls that are not seen here (tempfile renames by a system call of its own) is simply not
   durable before a sync of its folder, which reads the names as they are then. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *root, *shadow;
static size_t root_length;
static volatile char *control;
static time_t ahead;
static pthread_mutex_t keeping = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_open)(const char *, int, ...);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void die(const char *what) {
  fprintf(stderr, "shim: %s: %s\n", what, strerror(errno));
  abort();
}

static char state(void) { return control ? *control : 'n'; }

static int is_ours(const char *path) {
  return root && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == '\0');
}

static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = '\0';
  return is_ours(path);
}

static int is_on_disk(int fd) {
  char path[PATH_MAX];
  int was = errno, ours = path_of(fd, path);
  errno = was;
  return ours;
}

/* Relative paths are those of the folder that the host runs in, which is the root. */
static int is_path_on_disk(const char *path) { return root && (path[0] != '/' || is_ours(path)); }

/* What keeps. */

static void id_of(int folder, const char *name, char *id, int *is_folder) {
  struct statx stat;
  int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
  if (statx(folder, name, flags, STATX_INO | STATX_BTIME | STATX_TYPE, &stat) != 0) {
    *id = '\0'; /* it is gone again */
    return;
  }
  *is_folder = S_ISDIR(stat.stx_mode);
  snprintf(id, 96, "%llu-%lld.%09u", (unsigned long long)stat.stx_ino, (long long)stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
}

/* Writes of a keeper go past our own calls and land whole or not at all. */
static void keep_bytes(int fd, const char *id) {
  char from[64], temporary[PATH_MAX], kept[PATH_MAX];
  static char buffer[1 << 16];
  snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
  snprintf(temporary, sizeof temporary, "%s/new", shadow);
  snprintf(kept, sizeof kept, "%s/bytes/%s", shadow, id);
  int in = real_open(from, O_RDONLY | O_CLOEXEC), out = real_open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  struct stat stat;
  if (in < 0 || out < 0 || fstat(in, &stat) != 0 || real_ftruncate(out, stat.st_size) != 0) die("can't keep a file");
  off_t at = 0;
  /* Journals are 64 MiB, nearly all of it holes. */
  while ((at = lseek(in, at, SEEK_DATA)) >= 0 && at < stat.st_size) {
    off_t end = lseek(in, at, SEEK_HOLE);
    while (at < end) {
      size_t want = end - at < (off_t)sizeof buffer ? (size_t)(end - at) : sizeof buffer;
      ssize_t got = pread(in, buffer, want, at);
      if (got < 0) die("can't read");
      if (got == 0) break;
      if (real_pwrite(out, buffer, got, at) != got) die("can't keep");
      at += got;
    }
    if (end >= stat.st_size) break;
  }
  close(in);
  close(out);
  if (rename(temporary, kept) != 0) die("can't keep a file");
}

static void keep_names(const char *path, const char *id) {
  char temporary[PATH_MAX], kept[PATH_MAX];
  snprintf(temporary, sizeof temporary, "%s/new", shadow);
  snprintf(kept, sizeof kept, "%s/names/%s", shadow, id);
  DIR *folder = opendir(path);
  FILE *out = fopen(temporary, "we");
  if (!folder || !out) die("can't keep a folder");
  for (struct dirent *entry; (entry = readdir(folder));) {
    char of[96];
    int is_folder = 0;
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    id_of(dirfd(folder), entry->d_name, of, &is_folder);
    if (*of) fprintf(out, "%c %s %s\n", is_folder ? 'd' : 'f', of, entry->d_name);
  }
  closedir(folder);
  if (fclose(out) != 0 || rename(temporary, kept) != 0) die("can't keep a folder");
}

static void keep(int fd) {
  char id[96], path[PATH_MAX];
  int is_folder = 0;
  id_of(fd, "", id, &is_folder);
  if (!*id || !path_of(fd, path)) return;
  pthread_mutex_lock(&keeping);
  if (is_folder) keep_names(path, id); else keep_bytes(fd, id);
  pthread_mutex_unlock(&keeping);
}

static void keep_all(const char *path) {
  int fd = real_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  keep(fd);
  close(fd);
  DIR *folder = opendir(path);
  if (!folder) return;
  for (struct dirent *entry; (entry = readdir(folder));) {
    char inner[PATH_MAX];
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
    keep_all(inner);
  }
  closedir(folder);
}

#define REAL(name) (*(void **)&real_##name = dlsym(RTLD_NEXT, #name))
__attribute__((constructor)) static void begin(void) {
  REAL(write), REAL(writev), REAL(open), REAL(ftruncate), REAL(fsync), REAL(fdatasync), REAL(mkdir), REAL(rename), REAL(unlink);
  REAL(pwrite), REAL(clock_gettime);
  const char *text = getenv("TIDEGATE_CLOCK_AHEAD");
  if (text) ahead = atol(text);
  root = getenv("TIDEGATE_DISK_ROOT");
  if (!root) return;
  root_length = strlen(root);
  if ((text = getenv("TIDEGATE_DISK_CONTROL"))) {
    int fd = real_open(text, O_RDONLY | O_CLOEXEC);
    control = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
    if (fd < 0 || control == MAP_FAILED) die("no control");
    close(fd);
  }
  if ((shadow = getenv("TIDEGATE_DISK_SHADOW"))) {
    char path[PATH_MAX];
    const char *parts[] = {"", "/names", "/bytes"};
    for (int i = 0; i < 3; i++) {
      snprintf(path, sizeof path, "%s%s", shadow, parts[i]);
      real_mkdir(path, 0700);
    }
    keep_all(root);
  }
}

/* What refuses. */

static int refuses(void) {
  switch (state()) {
    case 'f': errno = ENOSPC; return 1;
    case 'r': errno = EROFS; return 1;
    default: return 0;
  }
}

/* A disk that becomes full takes the first blocks of a write. */
static size_t room(size_t count) { return state() == 'f' && count > 4096 ? count / 8192 * 4096 : 0; }

ssize_t write(int fd, const void *bytes, size_t count) {
  if (state() != 'n' && is_on_disk(fd)) {
    size_t some = room(count);
    if (some) return real_write(fd, bytes, some);
    if (refuses()) return -1;
  }
  return real_write(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (state() != 'n' && is_on_disk(fd) && refuses()) return -1;
  return real_writev(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  if (state() != 'n' && is_on_disk(fd) && refuses()) return -1;
  return real_pwrite(fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) { return pwrite(fd, bytes, count, at); }

int ftruncate(int fd, off_t length) {
  if (state() != 'n' && is_on_disk(fd) && refuses()) return -1;
  return real_ftruncate(fd, length);
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  int is_there = faccessat(AT_FDCWD, path, F_OK, 0) == 0;
  int writes = (flags & O_ACCMODE) != O_RDONLY && (state() == 'r' || !is_there);
  errno = 0;
  if (state() != 'n' && writes && is_path_on_disk(path) && refuses()) return -1;
  return real_open(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
  if (state() != 'n' && is_path_on_disk(path) && refuses()) return -1;
  return real_mkdir(path, mode);
}

/* A full disk can rename and remove. */
int rename(const char *from, const char *to) {
  if (state() == 'r' && is_path_on_disk(from) && refuses()) return -1;
  return real_rename(from, to);
}

int unlink(const char *path) {
  if (state() == 'r' && is_path_on_disk(path) && refuses()) return -1;
  return real_unlink(path);
}

/* What syncs. With a shadow the real disk is left alone: the shadow is the disk. */
static int sync_by(int fd, int (*real)(int)) {
  if (!is_on_disk(fd)) return real(fd);
  switch (state()) {
    case 's': nanosleep(&(struct timespec){.tv_sec = 1}, NULL); break;
    case 'r': errno = EROFS; return -1;
    case 'e': errno = EIO; return -1;
    default: break;
  }
  if (!shadow) return real(fd);
  keep(fd);
  return 0;
}
int fsync(int fd) { return sync_by(fd, real_fsync); }
int fdatasync(int fd) { return sync_by(fd, real_fdatasync); }

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = real_clock_gettime(clock, time);
  if (clock == CLOCK_REALTIME) time->tv_sec += ahead;
  return result;
}

/* The reader library of DwarFS for C: what a read-only file system asks of it, no more.
 *
 * Objects are named by inode number; the root is 0. No exception leaves a function: each returns
 * SHIM_OK, SHIM_NONE (no such entry) or SHIM_FAILED, and in the last case fills `error`. All functions
 * but shim_close may be called from any thread at the same time. */

#ifndef FIM_DWARFS_SHIM_H
#define FIM_DWARFS_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open archive. */
struct shim_archive;

enum { SHIM_OK = 0, SHIM_NONE = 1, SHIM_FAILED = 2 };

/* Longest name and longest link target, in bytes; what is longer fails with ENAMETOOLONG. */
enum { SHIM_MAX_NAME = 4096, SHIM_MAX_TARGET = 65536 };

/* Offset of an archive that has to be looked for. */
enum { SHIM_OFFSET_AUTO = -1 };

/* Whence of shim_seek. */
enum { SHIM_SEEK_DATA = 0, SHIM_SEEK_HOLE = 1 };

struct shim_error {
  int32_t code; /* an errno */
  char text[512]; /* ends with NUL */
};

struct shim_options {
  int64_t offset; /* where the archive begins, or SHIM_OFFSET_AUTO */
  int64_t size; /* its length, negative: up to the end of the file */
  uint64_t cache_bytes; /* bound of decoded blocks */
  uint32_t workers; /* threads that decode; 0: one a processor */
};

struct shim_time {
  int64_t seconds;
  uint32_t nanos;
};

struct shim_stat {
  uint64_t ino;
  uint32_t mode;
  uint32_t uid;
  uint32_t gid;
  uint64_t nlink;
  uint64_t rdev;
  uint64_t size;
  uint64_t blocks; /* of 512 bytes */
  struct shim_time atime, mtime, ctime;
};

struct shim_figures {
  uint64_t block_size;
  uint64_t blocks;
  uint64_t files;
  uint64_t name_max;
};

struct shim_entry {
  uint32_t inode;
  uint32_t mode;
  uint32_t name_len;
  char name[SHIM_MAX_NAME];
};

int32_t shim_open(char const *path, struct shim_options const *options, struct shim_archive **archive,
                  struct shim_error *error);
void shim_close(struct shim_archive *archive);

int32_t shim_root(struct shim_archive const *archive, uint32_t *inode, struct shim_error *error);
int32_t shim_find(struct shim_archive const *archive, uint32_t directory, char const *name, size_t name_len,
                  uint32_t *inode, struct shim_error *error);
int32_t shim_getattr(struct shim_archive const *archive, uint32_t inode, struct shim_stat *stat,
                     struct shim_error *error);

/* The entry at `position` of a directory, without `.` and `..`; SHIM_NONE behind the last. */
int32_t shim_readdir(struct shim_archive const *archive, uint32_t directory, uint64_t position,
                     struct shim_entry *entry, struct shim_error *error);

/* `len` holds the room in `target`, then the length of what was written there. */
int32_t shim_readlink(struct shim_archive const *archive, uint32_t inode, char *target, size_t *len,
                      struct shim_error *error);

/* `len` holds the room in `buffer`, then the number of bytes read; fewer only at the end of the file. */
int32_t shim_read(struct shim_archive const *archive, uint32_t inode, uint64_t offset, char *buffer,
                  size_t *len, struct shim_error *error);

/* SHIM_NONE where neither data nor hole follows. */
int32_t shim_seek(struct shim_archive const *archive, uint32_t inode, uint64_t offset, int32_t whence,
                  uint64_t *found, struct shim_error *error);
int32_t shim_statvfs(struct shim_archive const *archive, struct shim_figures *figures,
                     struct shim_error *error);

#ifdef __cplusplus
}
#endif

#endif

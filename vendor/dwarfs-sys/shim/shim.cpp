// The reader library of DwarFS for C; see shim.h.

#include "shim.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <dwarfs/error.h>
#include <dwarfs/file_stat.h>
#include <dwarfs/logger.h>
#include <dwarfs/os_access_generic.h>
#include <dwarfs/reader/filesystem_options.h>
#include <dwarfs/reader/filesystem_v2.h>
#include <dwarfs/reader/metadata_types.h>
#include <dwarfs/vfs_stat.h>

namespace reader = dwarfs::reader;

// The archive refers to the other two: they are made before it and live longer.
struct shim_archive {
  shim_archive(std::filesystem::path const &path, reader::filesystem_options const &options)
      : files{log, os, path, options} {}

  dwarfs::os_access_generic os;
  dwarfs::null_logger log;
  reader::filesystem_v2_lite files;
};

namespace {

int32_t fail(shim_error *error, int code, std::string_view text) noexcept {
  auto const len = std::min(text.size(), sizeof(error->text) - 1);
  error->code = code;
  std::memcpy(error->text, text.data(), len);
  error->text[len] = '\0';
  return SHIM_FAILED;
}

// The errno of a code, where it is one; anything else means that the archive is damaged.
int errno_of(std::error_code const &code) noexcept {
  auto const &category = code.category();
  bool const is_errno = category == std::generic_category() || category == std::system_category();
  return is_errno && code.value() != 0 ? code.value() : EIO;
}

int32_t fail(shim_error *error, std::error_code const &code) {
  return fail(error, errno_of(code), code.message());
}

// Runs `body`, and turns whatever it throws into an error.
template <typename Body> int32_t guarded(shim_error *error, Body &&body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (dwarfs::system_error const &thrown) {
    return fail(error, errno_of(thrown.code()), thrown.what());
  } catch (std::system_error const &thrown) {
    return fail(error, errno_of(thrown.code()), thrown.what());
  } catch (std::bad_alloc const &) {
    return fail(error, ENOMEM, "out of memory");
  } catch (std::exception const &thrown) {
    return fail(error, EIO, thrown.what());
  } catch (...) {
    return fail(error, EIO, "an exception of an unknown type");
  }
}

// Finds an inode and calls `body` with it.
template <typename Body>
int32_t with_inode(shim_archive const *archive, uint32_t inode, shim_error *error, Body &&body) noexcept {
  return guarded(error, [&]() -> int32_t {
    if (!std::in_range<int>(inode)) {
      return fail(error, ENOENT, "no such inode");
    }
    auto view = archive->files.find(static_cast<int>(inode));
    if (!view) {
      return fail(error, ENOENT, "no such inode");
    }
    return body(*view);
  });
}

shim_time time_of(dwarfs::file_stat::timespec_type const &time) {
  return {.seconds = time.sec, .nanos = time.nsec};
}

uint64_t positive(int64_t value) { return value < 0 ? 0 : static_cast<uint64_t>(value); }

} // namespace

int32_t shim_open(char const *path, shim_options const *options, shim_archive **archive, shim_error *error) {
  return guarded(error, [&]() -> int32_t {
    reader::filesystem_options wanted;
    wanted.image_offset = options->offset == SHIM_OFFSET_AUTO
                              ? reader::filesystem_options::IMAGE_OFFSET_AUTO
                              : options->offset;
    if (options->size >= 0) {
      wanted.image_size = options->size;
    }
    wanted.block_cache.max_bytes = options->cache_bytes;
    wanted.block_cache.num_workers = options->workers;
    *archive = new shim_archive(path, wanted);
    return SHIM_OK;
  });
}

void shim_close(shim_archive *archive) { delete archive; }

int32_t shim_root(shim_archive const *archive, uint32_t *inode, shim_error *error) {
  return guarded(error, [&]() -> int32_t {
    *inode = archive->files.root().inode().inode_num();
    return SHIM_OK;
  });
}

int32_t shim_find(shim_archive const *archive, uint32_t directory, char const *name, size_t name_len,
                  uint32_t *inode, shim_error *error) {
  return with_inode(archive, directory, error, [&](reader::inode_view const &view) -> int32_t {
    if (!view.is_directory()) {
      return fail(error, ENOTDIR, "not a directory");
    }
    auto entry = archive->files.find(static_cast<int>(directory), std::string_view{name, name_len});
    if (!entry) {
      return SHIM_NONE;
    }
    *inode = entry->inode().inode_num();
    return SHIM_OK;
  });
}

int32_t shim_getattr(shim_archive const *archive, uint32_t inode, shim_stat *stat, shim_error *error) {
  return with_inode(archive, inode, error, [&](reader::inode_view const &view) -> int32_t {
    std::error_code code;
    auto const found = archive->files.getattr(view, code);
    if (code) {
      return fail(error, code);
    }
    *stat = {
        .ino = found.ino(),
        .mode = found.mode(),
        .uid = found.uid(),
        .gid = found.gid(),
        .nlink = found.nlink(),
        .rdev = found.rdev(),
        .size = positive(found.size()),
        .blocks = positive(found.blocks()),
        .atime = time_of(found.atimespec()),
        .mtime = time_of(found.mtimespec()),
        .ctime = time_of(found.ctimespec()),
    };
    return SHIM_OK;
  });
}

int32_t shim_readdir(shim_archive const *archive, uint32_t directory, uint64_t position, shim_entry *entry,
                     shim_error *error) {
  // The library counts `.` and `..` as entries 0 and 1.
  constexpr uint64_t dots = 2;
  return with_inode(archive, directory, error, [&](reader::inode_view const &view) -> int32_t {
    auto const listing = archive->files.opendir(view);
    if (!listing) {
      return fail(error, ENOTDIR, "not a directory");
    }
    if (position >= archive->files.dirsize(*listing) - dots) {
      return SHIM_NONE;
    }
    auto const found = archive->files.readdir(*listing, position + dots);
    if (!found) {
      return SHIM_NONE;
    }
    auto const name = found->name();
    if (name.size() > sizeof(entry->name)) {
      return fail(error, ENAMETOOLONG, "a name is too long");
    }
    auto const inode = found->inode();
    entry->inode = inode.inode_num();
    entry->mode = inode.mode();
    entry->name_len = static_cast<uint32_t>(name.size());
    std::memcpy(entry->name, name.data(), name.size());
    return SHIM_OK;
  });
}

int32_t shim_readlink(shim_archive const *archive, uint32_t inode, char *target, size_t *len,
                      shim_error *error) {
  return with_inode(archive, inode, error, [&](reader::inode_view const &view) -> int32_t {
    std::error_code code;
    auto const found = archive->files.readlink(view, reader::readlink_mode::posix, code);
    if (code) {
      return fail(error, code);
    }
    if (found.size() > *len) {
      return fail(error, ENAMETOOLONG, "a link target is too long");
    }
    std::memcpy(target, found.data(), found.size());
    *len = found.size();
    return SHIM_OK;
  });
}

int32_t shim_read(shim_archive const *archive, uint32_t inode, uint64_t offset, char *buffer, size_t *len,
                  shim_error *error) {
  return with_inode(archive, inode, error, [&](reader::inode_view const &view) -> int32_t {
    std::error_code code;
    auto const file = archive->files.open(view, code);
    if (code) {
      return fail(error, code);
    }
    if (!std::in_range<dwarfs::file_off_t>(offset)) {
      *len = 0;
      return SHIM_OK;
    }
    auto const count = archive->files.read(static_cast<uint32_t>(file), buffer, *len,
                                           static_cast<dwarfs::file_off_t>(offset), code);
    if (code) {
      return fail(error, code);
    }
    *len = count;
    return SHIM_OK;
  });
}

int32_t shim_seek(shim_archive const *archive, uint32_t inode, uint64_t offset, int32_t whence, uint64_t *found,
                  shim_error *error) {
  return with_inode(archive, inode, error, [&](reader::inode_view const &view) -> int32_t {
    std::error_code code;
    auto const file = archive->files.open(view, code);
    if (code) {
      return fail(error, code);
    }
    if (!std::in_range<dwarfs::file_off_t>(offset)) {
      return SHIM_NONE;
    }
    auto const place = archive->files.seek(
        static_cast<uint32_t>(file), static_cast<dwarfs::file_off_t>(offset),
        whence == SHIM_SEEK_DATA ? reader::seek_whence::data : reader::seek_whence::hole, code);
    if (code && errno_of(code) == ENXIO) {
      return SHIM_NONE;
    }
    if (code) {
      return fail(error, code);
    }
    *found = positive(place);
    return SHIM_OK;
  });
}

int32_t shim_statvfs(shim_archive const *archive, shim_figures *figures, shim_error *error) {
  return guarded(error, [&]() -> int32_t {
    dwarfs::vfs_stat found{};
    archive->files.statvfs(&found);
    *figures = {
        .block_size = found.bsize,
        .blocks = found.blocks,
        .files = found.files,
        .name_max = found.namemax,
    };
    return SHIM_OK;
  });
}

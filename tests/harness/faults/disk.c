/*
 * A disk that fails when it is told to, preloaded into udsd (ld.so(8)). UDSD_FAULTS names a folder: while a file
 * `sync-waits` is there, fdatasync(2) does not return; while `sync-fails` is there, it fails with EIO; while
 * `write-fails` is there, write(2) to a regular file fails with the error of that number; while `write-waits` is
 * there, it writes and does not return.
 *
 * What the disk has is appended to `ledger` there, so that a loss of power can be acted out: "file INODE SIZE" for
 * each file that was synced; of a folder "names", a line "name INODE NAME" for each entry, and "folder" once all are
 * there.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static void in_folder(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", getenv("UDSD_FAULTS"), name);
}

static int is_told(const char *name)
{
	char path[4096];

	in_folder(path, sizeof path, name);
	return access(path, F_OK) == 0;
}

static void note(const char *format, ...)
{
	char path[4096], line[1024];
	va_list values;
	int fd, length;

	in_folder(path, sizeof path, "ledger");
	va_start(values, format);
	length = vsnprintf(line, sizeof line, format, values);
	va_end(values);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || syscall(SYS_write, fd, line, length) != length)
		abort();
	close(fd);
}

int fdatasync(int fd)
{
	struct stat found;

	while (is_told("sync-waits"))
		usleep(1000);
	if (is_told("sync-fails")) {
		note("refused\n");
		errno = EIO;
		return -1;
	}
	if (fstat(fd, &found) == 0)
		note("file %lu %lld\n", (unsigned long)found.st_ino, (long long)found.st_size);
	return 0;
}

int fsync(int fd)
{
	DIR *folder = fdopendir(dup(fd));
	struct dirent *entry;

	if (folder == NULL)
		return fdatasync(fd);
	note("names\n");
	rewinddir(folder);
	while ((entry = readdir(folder)) != NULL)
		note("name %lu %s\n", (unsigned long)entry->d_ino, entry->d_name);
	closedir(folder);
	note("folder\n");
	return 0;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
	char path[4096], error[16] = "";
	struct stat found;
	ssize_t written;
	int how;

	if (fstat(fd, &found) == 0 && S_ISREG(found.st_mode)) {
		in_folder(path, sizeof path, "write-fails");
		how = open(path, O_RDONLY);
		if (how >= 0) {
			if (read(how, error, sizeof error - 1) <= 0)
				abort();
			close(how);
			errno = atoi(error);
			return -1;
		}
		written = syscall(SYS_write, fd, bytes, count);
		while (is_told("write-waits"))
			usleep(1000);
		return written;
	}
	return syscall(SYS_write, fd, bytes, count);
}

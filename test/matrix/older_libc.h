/*
 * Included before everything when headers of a newer Debian's server are
 * compiled on an older Debian: that server's configure found functions which
 * the older C library does not declare.  The server runs with its own, newer C
 * library, which has them.
 */
#include <stddef.h>
#include <features.h>
#if !__GLIBC_PREREQ(2, 38)
extern size_t strlcpy(char *dst, const char *src, size_t siz);
extern size_t strlcat(char *dst, const char *src, size_t siz);
#endif

/* And the compiler may be older than the one that configure found. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 14
#define typeof_unqual(x) __typeof__(x)
#endif

/* Asks a libclang what the bindings of RocksDB will ask of it: to parse a header that includes C's standard headers.
 *
 * A machine can have libclang-cpp only, or a libclang without its own headers (stddef.h); the build would find out after minutes.
 * Usage: probe-libclang /path/to/libclang.so. Exit code: 0 when the header was parsed without an error, else 1. */
#include <dlfcn.h>
#include <stdio.h>

typedef void *handle;

int main(int argc, char **argv) {
  static const char header[] = "#include <stdarg.h>\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\nsize_t probe(bool);\n";
  struct unsaved { const char *name, *contents; unsigned long length; } file = {"probe.h", header, sizeof header - 1};
  void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (!library) return 1;
  handle (*create_index)(int, int) = (handle(*)(int, int))dlsym(library, "clang_createIndex");
  handle (*parse)(handle, const char *, const char *const *, int, struct unsaved *, unsigned, unsigned) =
      (handle(*)(handle, const char *, const char *const *, int, struct unsaved *, unsigned, unsigned))dlsym(library, "clang_parseTranslationUnit");
  unsigned (*count)(handle) = (unsigned (*)(handle))dlsym(library, "clang_getNumDiagnostics");
  handle (*get)(handle, unsigned) = (handle(*)(handle, unsigned))dlsym(library, "clang_getDiagnostic");
  int (*severity)(handle) = (int (*)(handle))dlsym(library, "clang_getDiagnosticSeverity");
  if (!create_index || !parse || !count || !get || !severity) return 1;
  handle unit = parse(create_index(0, 0), "probe.h", NULL, 0, &file, 1, 0);
  if (!unit) return 1;
  for (unsigned i = 0; i < count(unit); i++)
    if (severity(get(unit, i)) >= 3) return 1; /* CXDiagnostic_Error */
  return 0;
}

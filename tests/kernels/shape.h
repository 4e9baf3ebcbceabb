/* shape.h - of kernel tests and benchmarks; in a compiled program archc writes it. */
#ifndef THREADS
#define THREADS 2
#endif
#ifndef ROW_GRANULE
#define ROW_GRANULE 1
#endif

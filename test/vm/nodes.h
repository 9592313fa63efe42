/*
 * nodes.h - what the tests for machines with several nodes share: which nodes there are, by sysfs,
 * and on which of them memory lies, by asking the kernel page by page.
 */
#ifndef QUIRE_TEST_VM_NODES_H
#define QUIRE_TEST_VM_NODES_H

#include <stdlib.h>
#include <string.h>

#include "../conform/conform.h"
#include "quire/numa.h"

#define MAX_NODES 16
#define MIB ((size_t)1 << 20)

/* The machine: nodes with memory, and the first CPU of each; -1: none. */
extern int nr_nodes, first_cpu[MAX_NODES], has_memory[MAX_NODES];
extern size_t page_size;

/* Of every kind of block. */
enum { NR_SIZES = 9 };
extern const size_t sizes[NR_SIZES];

/* A small file: how many bytes it has, or -1. */
int read_text(const char *path, char *text, size_t size);
bool write_text(const char *path, const char *text);

void learn_machine(void);

/* Skip the case unless there are two nodes with memory and CPUs: the first two, in a and b. */
void need_two(int *a, int *b);

/* This thread, on the first CPU of the node. */
void run_on(int node);

/* Pages of [p, p + n) by node; what has no memory is not counted. */
void count_pages(const void *p, size_t n, size_t on[MAX_NODES]);
size_t pages_elsewhere(const void *p, size_t n, int node);

/* A block of n bytes, written, whose pages all lie on the node. */
void *block_on(size_t n, int node);

#endif

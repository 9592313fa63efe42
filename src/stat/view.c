/* view.c - see view.h: finding a view by name, and room for its text. */
#include "stat/view.h"

#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "slab/slub.h"

#define FIRST_ROOM ((size_t)1 << 16)
#define LAST_ROOM ((size_t)1 << 28)

static const struct {
    const char *name;
    int (*print)(struct q_view *v);
} views[] = {
    {"buddyinfo", q_view_buddyinfo},     {"pagetypeinfo", q_view_pagetypeinfo},
    {"zoneinfo", q_view_zoneinfo},       {"slabinfo", q_view_slabinfo},
    {"vmallocinfo", q_view_vmallocinfo}, {"numastat", q_view_numastat},
    {"extfrag_index", q_view_extfrag},   {"unusable_index", q_view_unusable},
};

#define NR_VIEWS (sizeof(views) / sizeof(views[0]))

const char *q_view_name(unsigned index)
{
    return index < NR_VIEWS ? views[index].name : NULL;
}

/* True where the text, with its end, fits. */
static bool fits(const struct q_view *v)
{
    return v->out.len + 1 < v->out.size;
}

static int render(unsigned which, bool json, struct q_view_text *text)
{
    for (size_t room = FIRST_ROOM; room <= LAST_ROOM; room *= 2) {
        struct q_view v = {.out = {.size = room}, .json = json};

        v.out.at = q_mmap(NULL, room, PROT_READ | PROT_WRITE, 0);
        if (v.out.at == NULL)
            return ENOMEM;
        *text = (struct q_view_text){.at = v.out.at, .mapped = room};
        int error = views[which].print(&v);
        if (error == 0 && fits(&v)) {
            text->len = v.out.len;
            return 0;
        }
        q_view_release(text);
        if (error != 0)
            return error;
    }
    return ENOMEM;
}

int q_view_render(const char *name, bool json, struct q_view_text *text)
{
    if (!q_slub_init())
        return ENOMEM;
    for (unsigned i = 0; i < NR_VIEWS; i++)
        if (strcmp(name, views[i].name) == 0)
            return render(i, json, text);
    return ENOENT;
}

void q_view_release(struct q_view_text *text)
{
    q_munmap(text->at, text->mapped);
    *text = (struct q_view_text){0};
}

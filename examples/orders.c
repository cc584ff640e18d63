// A bakery's orders: a list, and a note for each that is allocated to measure. Something in here is wrong by one byte;
// 26_endless_list.py finds it. It begins with a list that has no end.
#include <sandbox.h>
#include <string.h>

struct order {
    struct order *next;
    unsigned long pieces;
    char *note;
    unsigned long table;
};
static struct order *orders, **last = &orders;

char *copy(const char *text) {
    char *note = kmalloc(strlen(text));
    strcpy(note, text);
    return note;
}

struct order *place(unsigned long table, unsigned long pieces, const char *note) {
    struct order *order = kmalloc(sizeof *order);
    *order = (struct order){.pieces = pieces, .note = copy(note), .table = table};
    *last = order;
    last = &order->next;
    return order;
}

void change_note(struct order *order, const char *note) {
    kfree(order->note);
    order->note = copy(note);
}

unsigned long count(void) {
    unsigned long pieces = 0;
    for (struct order *order = orders; order != NULL; order = order->next)
        pieces += order->pieces;
    return pieces;
}

int main(void) {
    place(1, 2, "with butter, and with honey");
    struct order *second = place(2, 1, "no nuts in it, please, none");
    place(3, 4, "two of them for the children");
    place(4, 3, "well done, nearly black, thanks");
    kprintf("%lu pieces are to be baked\n", count());
    change_note(second, "no nuts in it, and black coffee.");
    kprintf("%lu pieces are to be baked\n", count());
    return 0;
}

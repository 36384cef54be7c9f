#include "tide.h"

int tide_table(int port, int hour) {
    return port * 13 + (hour ^ port);
}

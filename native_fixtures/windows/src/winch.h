/* The library: a call through it leads back into the program. It also keeps the trail. */
#ifndef WINCH_H
#define WINCH_H

#ifdef BUILDING_WINCH
#define WINCH __declspec(dllexport)
#define WINCH_STUB WINCH
#else
#define WINCH __declspec(dllimport)
#define WINCH_STUB
#endif

#define TRAIL_SIZE 4096

struct trail {
    unsigned length;
    void *address[TRAIL_SIZE];
};

extern WINCH struct trail trail;
/* Return addresses of the functions entered, outermost first, as each of them sees its own. */

WINCH int winch_lift(int (*load)(int), int weight);
WINCH_STUB int winch_lower(int (*load)(int), int weight);
/* Not declared as imported: a call to it goes through the linker's import stub. */

#endif

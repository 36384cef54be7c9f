// Objective-C: a method of a class, reached by a message.
__attribute__((objc_root_class))
@interface Barn
+ (int)store:(int)litres;
@end

static volatile int stored;

@implementation Barn
+ (int)store:(int)litres {
    stored += litres;
    return stored;
}
@end

int barn_store(int litres) {
    return [Barn store:litres] + 1;
}

/* The outer planets for a number of days, and how well energy is kept.
 *
 *     orc-trio run nbody.c [DAYS]
 *
 * A symplectic (leapfrog) step of one day in units of AU, days and solar masses; DAYS is 3650 if not given.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BODIES 5
#define G 2.9591220828559e-4 /* AU^3 / (solar mass * day^2) */

struct body {
    const char *name;
    double mass;
    double position[3];
    double velocity[3];
};

/* Circular orbits in one plane, each started at another angle: simple, and stable for as long as anybody waits. */
static struct body bodies[BODIES] = {
    {.name = "Sun", .mass = 1.0},
    {.name = "Jupiter", .mass = 9.547e-4},
    {.name = "Saturn", .mass = 2.858e-4},
    {.name = "Uranus", .mass = 4.366e-5},
    {.name = "Neptune", .mass = 5.151e-5},
};
static const double radius[BODIES] = {0.0, 5.203, 9.537, 19.189, 30.070};

static void start(void) {
    for (int i = 1; i < BODIES; i++) {
        double angle = 1.3 * i;
        double speed = sqrt(G / radius[i]);
        bodies[i].position[0] = radius[i] * cos(angle);
        bodies[i].position[1] = radius[i] * sin(angle);
        bodies[i].velocity[0] = -speed * sin(angle);
        bodies[i].velocity[1] = speed * cos(angle);
        for (int k = 0; k < 3; k++) /* keep the centre of mass at rest */
            bodies[0].velocity[k] -= bodies[i].velocity[k] * bodies[i].mass;
    }
}

static void kick(double days) {
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            double apart[3], square = 0.0;
            for (int k = 0; k < 3; k++) {
                apart[k] = bodies[j].position[k] - bodies[i].position[k];
                square += apart[k] * apart[k];
            }
            double pull = G * days / (square * sqrt(square));
            for (int k = 0; k < 3; k++) {
                bodies[i].velocity[k] += apart[k] * pull * bodies[j].mass;
                bodies[j].velocity[k] -= apart[k] * pull * bodies[i].mass;
            }
        }
    }
}

static void drift(double days) {
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].position[k] += bodies[i].velocity[k] * days;
}

static double energy(void) {
    double sum = 0.0;
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++)
            sum += 0.5 * bodies[i].mass * bodies[i].velocity[k] * bodies[i].velocity[k];
        for (int j = i + 1; j < BODIES; j++) {
            double square = 0.0;
            for (int k = 0; k < 3; k++) {
                double apart = bodies[j].position[k] - bodies[i].position[k];
                square += apart * apart;
            }
            sum -= G * bodies[i].mass * bodies[j].mass / sqrt(square);
        }
    }
    return sum;
}

int main(int argc, char **argv) {
    long days = argc > 1 ? strtol(argv[1], NULL, 10) : 3650;
    if (days < 0) {
        fprintf(stderr, "DAYS must not be negative\n");
        return 2;
    }
    start();
    double before = energy();
    for (long day = 0; day < days; day++) {
        kick(0.5);
        drift(1.0);
        kick(0.5);
    }
    printf("after %ld days\n", days);
    for (int i = 0; i < BODIES; i++)
        printf("%-8s %12.6f %12.6f %12.6f AU\n", bodies[i].name, bodies[i].position[0], bodies[i].position[1],
               bodies[i].position[2]);
    printf("energy changed by one part in 10^%.0f or less\n", floor(-log10(fabs((energy() - before) / before) + 1e-16)));
    return 0;
}

/* Errors go to the console. */
#pragma once
#define LV_LOG_ERROR(...) fprintf(stderr, __VA_ARGS__)

/* lv_tlsf.c needs nothing of it. */

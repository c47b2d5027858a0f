# The far end's two functions, for pycapnp.
@0x9f3c5d8b7a6e4f21;

interface Probe {
  wait @0 ();
  echo @1 ();
}

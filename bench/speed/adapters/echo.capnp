@0xb31d7c8e5f2a4690;

interface Echo {
  echo @0 (payload :Data) -> (payload :Data);
}

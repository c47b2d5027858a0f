; Writes through a null pointer: the executor dies of SIGSEGV, the controller lives.
;
;     orc-trio run crash.ll; echo $?        # 139 = 128 + 11

@text = private unnamed_addr constant [23 x i8] c"about to write to null\00"

declare i32 @puts(ptr)
declare i32 @fflush(ptr)

define i32 @main() {
  call i32 @puts(ptr @text)
  call i32 @fflush(ptr null)
  store volatile i32 42, ptr null
  ret i32 0
}

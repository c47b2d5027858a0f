; Ends the process from deep inside with exit(3): what was printed still comes out, and the exit status is 3.
;
;     orc-trio run exit3.ll; echo $?        # 3

@text = private unnamed_addr constant [32 x i8] c"leaving with 3, nothing flushed\00"

declare i32 @puts(ptr)
declare void @exit(i32) noreturn

define internal void @deep_inside() {
  call i32 @puts(ptr @text)
  call void @exit(i32 3) noreturn
  unreachable
}

define i32 @main() {
  call void @deep_inside()
  ret i32 1
}

; The Mandelbrot set as a grey-scale picture (PGM) on stdout.
;
;     orc-trio run mandelbrot.ll [SIZE] > mandelbrot.pgm
;
; The picture is SIZE x SIZE pixels, 64 if SIZE is not given. Exit status 0; 2 if SIZE makes no sense.

@header   = private unnamed_addr constant [14 x i8] c"P5\0A%d %d\0A255\0A\00"
@complain = private unnamed_addr constant [32 x i8] c"SIZE must be between 1 and 4096\00"

declare i32 @printf(ptr, ...)
declare i32 @puts(ptr)
declare i32 @putchar(i32)
declare i32 @atoi(ptr)

; How fast the orbit of cx + cy*i escapes: 0 (at once) to 255 (not within 255 steps).
define internal i32 @escape_time(double %cx, double %cy) {
entry:
  br label %step

step:
  %n  = phi i32    [ 0, %entry ],   [ %n.next, %next ]
  %zx = phi double [ 0.0, %entry ], [ %zx.next, %next ]
  %zy = phi double [ 0.0, %entry ], [ %zy.next, %next ]
  %zx2 = fmul double %zx, %zx
  %zy2 = fmul double %zy, %zy
  %norm = fadd double %zx2, %zy2
  %escaped = fcmp ogt double %norm, 4.0
  %last = icmp eq i32 %n, 255
  %stop = or i1 %escaped, %last
  br i1 %stop, label %done, label %next

next:
  %re = fsub double %zx2, %zy2
  %zx.next = fadd double %re, %cx
  %zxzy = fmul double %zx, %zy
  %twice = fmul double 2.0, %zxzy
  %zy.next = fadd double %twice, %cy
  %n.next = add i32 %n, 1
  br label %step

done:
  ret i32 %n
}

; Where pixel %i of %size lies on an axis of length 3 that begins at %start.
define internal double @coordinate(i32 %i, i32 %size, double %start) {
  %a = sitofp i32 %i to double
  %b = sitofp i32 %size to double
  %part = fdiv double %a, %b
  %length = fmul double %part, 3.0
  %at = fadd double %start, %length
  ret double %at
}

define i32 @main(i32 %argc, ptr %argv) {
entry:
  %given = icmp sgt i32 %argc, 1
  br i1 %given, label %parse, label %check

parse:
  %slot = getelementptr ptr, ptr %argv, i64 1
  %text = load ptr, ptr %slot
  %number = call i32 @atoi(ptr %text)
  br label %check

check:
  %size = phi i32 [ 64, %entry ], [ %number, %parse ]
  %positive = icmp sgt i32 %size, 0
  %small = icmp sle i32 %size, 4096
  %good = and i1 %positive, %small
  br i1 %good, label %start, label %bad

bad:
  call i32 @puts(ptr @complain)
  ret i32 2

start:
  call i32 (ptr, ...) @printf(ptr @header, i32 %size, i32 %size)
  br label %row

row:
  %y = phi i32 [ 0, %start ], [ %y.next, %row.end ]
  %cy = call double @coordinate(i32 %y, i32 %size, double -1.5)
  br label %pixel

pixel:
  %x = phi i32 [ 0, %row ], [ %x.next, %pixel ]
  %cx = call double @coordinate(i32 %x, i32 %size, double -2.25)
  %grey = call i32 @escape_time(double %cx, double %cy)
  call i32 @putchar(i32 %grey)
  %x.next = add i32 %x, 1
  %row.done = icmp eq i32 %x.next, %size
  br i1 %row.done, label %row.end, label %pixel

row.end:
  %y.next = add i32 %y, 1
  %done = icmp eq i32 %y.next, %size
  br i1 %done, label %finish, label %row

finish:
  ret i32 0
}

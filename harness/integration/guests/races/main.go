// Races is a program with a data race. It imports nothing, because the standard library takes long to compile
// with the race detector.
package main

func main() {
	n, done := 0, make(chan bool)
	go func() { n++; close(done) }()
	n++
	<-done
	println(n)
}

package bench

import (
	"net"
	"os"
	"testing"
)

// A listener of this process is found by its address, and one that has gone is not.
func TestListenerPID(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		at := net.JoinHostPort("127.0.0.1", port)
		if pid := listenerPID(at); pid != os.Getpid() {
			t.Errorf("%s, asked for as %s: pid %d, want %d", l.Addr(), at, pid, os.Getpid())
		}
		l.Close()
		if pid := listenerPID(at); pid != 0 {
			t.Errorf("%s is closed, and its pid is %d", at, pid)
		}
	}
	if pid := listenerPID("192.0.2.1:80"); pid != 0 { // for documentation: nobody's
		t.Errorf("another machine's pid is %d", pid)
	}
}

func TestKernelIP(t *testing.T) {
	for in, want := range map[string]net.IP{
		"0100007F":                         net.IPv4(127, 0, 0, 1),
		"00000000000000000000000001000000": net.IPv6loopback,
		"0000000000000000FFFF00000100007F": net.IPv4(127, 0, 0, 1),
		"B80D01200000000000000000010000AB": net.ParseIP("2001:db8::ab00:1"),
	} {
		if got, ok := kernelIP(in); !ok || !got.Equal(want) {
			t.Errorf("%s: %v %v, want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "01", "zz00007F", "0100007F00"} {
		if got, ok := kernelIP(in); ok {
			t.Errorf("%q is %v", in, got)
		}
	}
}

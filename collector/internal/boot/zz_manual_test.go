package boot_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/boot"
	"provost/proto"
)

type manual struct{ n map[string]int }

func (m *manual) Boot(_ context.Context, r boot.Request) (boot.Decision, error) {
	m.n[r.MAC]++
	fmt.Fprintf(os.Stderr, "%s ASK %+v\n", time.Now().Format("05.0"), r)
	d := install()
	d.Kernel, d.Initrds, d.Args = "images/vmlinuz", []string{"images/initrd.img", "overlay"}, `console=ttyS0 mitigations=off nokaslr x="a b" y=$z;w panic=1`
	switch r.MAC[15:] {
	case "01":
		return d, nil
	case "02":
		return boot.Decision{Action: proto.BootBlock, Node: "n1", Reason: []string{"n1: failed(otherpkgs=127)", "#boo ; reboot || boot && ${net0/mac} \\", strings.Repeat("long text ", 20)}, Hint: []string{"provost log n1 otherpkgs", "provost install n1"}}, nil
	case "03":
		return boot.Decision{Action: proto.BootDisk, UnknownMAC: true}, nil
	case "04":
		if m.n[r.MAC] == 1 {
			return d, errors.New("broken")
		}
		return boot.Decision{Action: proto.BootDisk, Node: "n4"}, nil
	case "05":
		d.Initrds = append(d.Initrds, "images/missing")
		return d, nil
	case "06":
		return boot.Decision{Action: proto.BootDisk, Node: "n6", LocalBoot: "sanboot"}, nil
	}
	return d, nil
}
func (m *manual) Sent(_ context.Context, ticket, file string, complete bool) {
	fmt.Fprintln(os.Stderr, time.Now().Format("05.0"), "SENT", ticket, file, complete)
}

func TestManual(t *testing.T) {
	os.WriteFile("/tmp/man-overlay.img", nil, 0o644)
	h := boot.NewServer(&manual{map[string]int{}}, boot.Options{ImagesDir: "/work/main/.cache/fast", Overlay: "/tmp/man-overlay.img"})
	go http.ListenAndServe("127.0.0.1:18480", h)
	time.Sleep(200 * time.Second)
}

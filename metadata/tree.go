package metadata

import "iter"

// tree is a persistent sorted map: put and remove return a new tree that shares all but one path with the old one, so
// images of 100 000 topics cost a path each. It is a balanced (AVL) binary tree. The zero value needs compare set.
type tree[K, V any] struct {
	root    *node[K, V]
	n       int
	compare func(a, b K) int
}

type node[K, V any] struct {
	left, right *node[K, V]
	height      int8
	key         K
	val         V
}

func (t tree[K, V]) get(k K) (v V, ok bool) {
	for x := t.root; x != nil; {
		switch c := t.compare(k, x.key); {
		case c == 0:
			return x.val, true
		case c < 0:
			x = x.left
		default:
			x = x.right
		}
	}
	return v, false
}

func (t tree[K, V]) put(k K, v V) tree[K, V] {
	if _, ok := t.get(k); !ok {
		t.n++
	}
	t.root = t.putAt(t.root, k, v)
	return t
}

func (t tree[K, V]) putAt(x *node[K, V], k K, v V) *node[K, V] {
	if x == nil {
		return &node[K, V]{height: 1, key: k, val: v}
	}
	y := *x
	switch c := t.compare(k, x.key); {
	case c == 0:
		y.key, y.val = k, v
		return &y
	case c < 0:
		y.left = t.putAt(x.left, k, v)
	default:
		y.right = t.putAt(x.right, k, v)
	}
	return balance(&y)
}

func (t tree[K, V]) remove(k K) tree[K, V] {
	if _, ok := t.get(k); !ok {
		return t
	}
	t.n--
	t.root = t.removeAt(t.root, k)
	return t
}

func (t tree[K, V]) removeAt(x *node[K, V], k K) *node[K, V] {
	y := *x
	switch c := t.compare(k, x.key); {
	case c < 0:
		y.left = t.removeAt(x.left, k)
	case c > 0:
		y.right = t.removeAt(x.right, k)
	case x.left == nil:
		return x.right
	case x.right == nil:
		return x.left
	default:
		next := x.right
		for next.left != nil {
			next = next.left
		}
		y.key, y.val = next.key, next.val
		y.right = t.removeAt(x.right, next.key)
	}
	return balance(&y)
}

// from gives the first entry whose key is k or above.
func (t tree[K, V]) from(k K) (key K, val V, ok bool) {
	for x := t.root; x != nil; {
		if t.compare(x.key, k) < 0 {
			x = x.right
			continue
		}
		key, val, ok = x.key, x.val, true
		x = x.left
	}
	return key, val, ok
}

// all walks the entries in ascending order.
func (t tree[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { walk(t.root, yield) }
}

func walk[K, V any](x *node[K, V], yield func(K, V) bool) bool {
	return x == nil || walk(x.left, yield) && yield(x.key, x.val) && walk(x.right, yield)
}

func height[K, V any](x *node[K, V]) int8 {
	if x == nil {
		return 0
	}
	return x.height
}

func (x *node[K, V]) measure() { x.height = 1 + max(height(x.left), height(x.right)) }

// balance restores the balance of x, which is new and whose subtrees differ in height by at most two.
func balance[K, V any](x *node[K, V]) *node[K, V] {
	switch d := height(x.left) - height(x.right); {
	case d > 1:
		l := clone(x.left)
		if height(l.left) < height(l.right) {
			m := clone(l.right)
			l.right, m.left = m.left, l
			l.measure()
			l = m
		}
		x.left, l.right = l.right, x
		x.measure()
		l.measure()
		return l
	case d < -1:
		r := clone(x.right)
		if height(r.right) < height(r.left) {
			m := clone(r.left)
			r.left, m.right = m.right, r
			r.measure()
			r = m
		}
		x.right, r.left = r.left, x
		x.measure()
		r.measure()
		return r
	}
	x.measure()
	return x
}

func clone[K, V any](x *node[K, V]) *node[K, V] {
	y := *x
	return &y
}

//! Products with matrices of float32 and float16: against the definition in double precision, and one way of computing against
//! the other.

#[path = "common/kernels.rs"]
mod common;

use half::f16;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use vintern::kernels::{BlockProduct, Element};

use common::Backwards;

/// Inputs and outputs: whole registers and pieces of work, and all kinds of remainders.
const SIZES: [(usize, usize); 7] = [(64, 128), (320, 200), (96, 17), (1100, 130), (32, 1), (40, 65), (300, 1043)];

/// As few as are read as they lie in all groupings, and more.
const ROWS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 11, 16, 17, 100, 300];

fn random<E: Element>(random: &mut StdRng, count: usize) -> Vec<E> {
    let values: Vec<f32> = (0..count).map(|_| random.random_range(-1.0..1.0)).collect();
    let mut elements = vec![E::default(); count];
    E::narrow(&values, &mut elements);
    elements
}

fn widened<E: Element>(elements: &[E]) -> Vec<f32> {
    let mut values = vec![0.0; elements.len()];
    E::widen(elements, &mut values);
    values
}

fn product<E: Element>(product: BlockProduct, values: &[E], matrix: &[E], size: (usize, usize)) -> Vec<f32> {
    let mut out = vec![f32::NAN; values.len() / size.0 * size.1];
    let mut elements = vec![E::default(); out.len()];
    E::narrow(&out, &mut elements);
    let Ok(()) = product.dense(values, matrix, size, &mut elements, &Backwards);
    E::widen(&elements, &mut out);
    out
}

/// `precision`: half a step between numbers close to 1.
fn meets_the_definition<E: Element>(precision: f64) {
    let mut random_numbers = StdRng::seed_from_u64(7);
    for size @ (inputs, outputs) in SIZES {
        let rows = 5;
        let values = random::<E>(&mut random_numbers, rows * inputs);
        let matrix = random::<E>(&mut random_numbers, inputs * outputs);
        let (wide_values, wide_matrix) = (widened(&values), widened(&matrix));
        for kernels in BlockProduct::all() {
            let found = product(kernels, &values, &matrix, size);
            for (index, found) in found.into_iter().enumerate() {
                let row = &wide_values[index / outputs * inputs..][..inputs];
                let column = wide_matrix[index % outputs..].iter().step_by(outputs);
                let terms = row.iter().zip(column).map(|(value, weight)| f64::from(*value) * f64::from(*weight));
                let (sum, size_of_terms) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                let bound = 1e-6 * size_of_terms + precision * f64::abs(sum);
                assert!((f64::from(found) - sum).abs() <= bound, "{size:?} {kernels:?}: {found} instead of {sum}");
            }
        }
    }
}

#[test]
fn float32_products_meet_the_definition() {
    meets_the_definition::<f32>(0.0);
}

#[test]
fn float16_products_meet_the_definition() {
    meets_the_definition::<f16>(2.0_f64.powi(-11));
}

/// All instructions give the same bits, and a row's do not depend on the rows beside it.
fn is_the_same_in_all_ways<E: Element>() {
    let mut random_numbers = StdRng::seed_from_u64(8);
    for size @ (inputs, outputs) in SIZES {
        let most = ROWS.into_iter().max().unwrap();
        let values = random::<E>(&mut random_numbers, most * inputs);
        let matrix = random::<E>(&mut random_numbers, inputs * outputs);
        let whole = product(BlockProduct::portable(), &values, &matrix, size);
        for kernels in BlockProduct::all() {
            for rows in ROWS {
                let found = product(kernels, &values[..rows * inputs], &matrix, size);
                assert!(found == whole[..rows * outputs], "{size:?}, {rows} rows, {kernels:?}");
            }
            let last = product(kernels, &values[(most - 1) * inputs..], &matrix, size);
            assert!(last == whole[(most - 1) * outputs..], "{size:?}, the last row, {kernels:?}");
        }
    }
}

#[test]
fn float32_products_are_the_same_in_all_ways() {
    is_the_same_in_all_ways::<f32>();
}

#[test]
fn float16_products_are_the_same_in_all_ways() {
    is_the_same_in_all_ways::<f16>();
}

#[test]
fn what_is_no_number_spoils_its_own_row_alone() {
    for kernels in BlockProduct::all() {
        let mut values = vec![1.0_f32; 3 * 40];
        values[50] = f32::NAN;
        let found = product(kernels, &values, &vec![0.5; 40 * 30], (40, 30));
        assert!(found[..30].iter().chain(&found[60..]).all(|value| (value - 20.0).abs() < 1e-6));
        assert!(found[30..60].iter().all(|value| value.is_nan()));
    }
}

#[test]
fn nothing_is_a_product_of_no_rows() {
    for kernels in BlockProduct::all() {
        assert!(product::<f32>(kernels, &[], &[0.0; 12], (4, 3)).is_empty());
    }
}

#[test]
#[should_panic(expected = "the matrix has another size")]
fn sizes_must_fit_together() {
    product::<f32>(BlockProduct::portable(), &[0.0; 4], &[0.0; 11], (4, 3));
}
